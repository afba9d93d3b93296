"""Vectors by a model of a few thousand weights in a real Hugging Face folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from finetune_contract.artifacts import Document
from finetune_trainer.dataset.knowledge_base.sentence_model import SentenceVectors
from finetune_trainer.errors import BaseModelRejected
from tests.finetune_trainer.training.tiny_model import context_for, save_tiny_model, spec_for


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("sentence") / "model")


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> SentenceVectors:
    return sentence_vectors(folder, tmp_path)


def sentence_vectors(folder: Path, work: Path) -> SentenceVectors:
    return SentenceVectors(context_for(work, spec_for(work / "base-model-of-the-run")), folder.as_uri())


def post(number: int, excerpt: str = "") -> Document:
    return Document(
        source="site",
        post_id=str(number),
        post_title=f"Post {number}",
        post_excerpt=excerpt,
        post_content="word " * (number + 1),
        post_date="2025-01-01T00:00:00Z",
        post_author="Ada",
        post_categories=[],
        post_tags=[],
        post_url=f"http://site/{number}/",
    )


def test_a_vector_is_the_mean_of_the_last_layer_and_has_length_one(model, folder):
    text = "How high is mast 3?"
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder)(input_ids=tokens["input_ids"]).last_hidden_state[0]
    expected = torch.nn.functional.normalize(hidden.float().mean(dim=0), dim=0)

    vector = torch.tensor(model.encode([text])[0])

    assert torch.allclose(vector, expected, atol=1e-5)
    assert float(vector.norm()) == pytest.approx(1.0, abs=1e-5)


def test_a_text_has_the_same_vector_alone_and_beside_longer_ones(model):
    alone = torch.tensor(model.encode(["short"]))

    together = torch.tensor(model.encode(["a much longer text " * 9, "short", "another one"]))

    assert torch.allclose(alone[0], together[1], atol=1e-5)


def test_more_texts_than_a_batch_keep_their_order(model):
    texts = [f"text {number} " * (40 - number) for number in range(40)]

    together = torch.tensor(model.encode(texts))

    assert torch.allclose(together[37], torch.tensor(model.encode([texts[37]])[0]), atol=1e-5)


def test_each_document_has_its_named_vectors(model):
    first, second = model.vectors([post(1, excerpt="In short."), post(2)])

    assert set(first) == {"title", "excerpt", "content"}
    assert set(second) == {"title", "content"}
    assert first["title"] == pytest.approx(model.encode(["Post 1"])[0], abs=1e-5)


def test_a_text_over_the_length_is_cut_at_its_end(model):
    start = "x" * 600

    assert model.encode([start + "one"])[0] == pytest.approx(model.encode([start + "two"])[0], abs=1e-6)


def test_a_model_says_itself_how_long_its_texts_are(folder, tmp_path):
    short = tmp_path / "short"
    shutil.copytree(folder, short)
    (short / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    model = sentence_vectors(short, tmp_path)

    assert model.encode(["01234567890"])[0] == pytest.approx(model.encode(["01234567xyz"])[0], abs=1e-6)


def test_the_identity_follows_the_files(model, folder, tmp_path):
    other = save_tiny_model(tmp_path / "other", layers=1)

    assert model.identity() == sentence_vectors(folder, tmp_path / "elsewhere").identity()
    assert model.identity() != sentence_vectors(other, tmp_path).identity()


def test_a_folder_that_is_no_model_is_refused_under_its_own_field(tmp_path):
    with pytest.raises(
        BaseModelRejected, match=r"^spec\.dataset\.knowledgeBase\.weaviate\.vectors\.sentenceModel: "
    ):
        sentence_vectors(tmp_path / "nothing", tmp_path).identity()


def test_a_model_that_transformers_does_not_know_is_refused(folder, tmp_path):
    strange = tmp_path / "strange"
    shutil.copytree(folder, strange)
    (strange / "config.json").write_text('{"model_type": "no-such-architecture"}')

    with pytest.raises(BaseModelRejected, match="sentenceModel: transformers cannot load"):
        sentence_vectors(strange, tmp_path).vectors([post(1)])
