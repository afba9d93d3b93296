"""What holds of the examples of a whole site, however they are made: of the sides, the bytes, and one edited post."""

from __future__ import annotations

import re

import pytest

from finetune_contract.artifacts import Document, Example
from finetune_contract.run_spec import DatasetSpec
from finetune_trainer.dataset.build import make_examples
from finetune_trainer.dataset.examples import WITHOUT_SOURCES, corpus
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.phrasing import normalised
from finetune_trainer.dataset.held_out import held_out
from finetune_trainer.dataset.split import Split
from finetune_trainer.dataset.step_counts import StepCount

COUNT = 104
PARTS = ["loaf", "wheel", "otter", "gauge", "pond", "tern", "bridge", "oven"]
SPEC = DatasetSpec.model_validate(
    {"sources": [{"name": "site", "wordpress": {"url": "http://s"}}], "maxExamplesPerDocument": 200}
)


def document(number: int, price: int = 0) -> Document:
    thing = f"{PARTS[number % len(PARTS)]} {PARTS[number // len(PARTS) % len(PARTS)]}{number}"
    return Document(
        source="site",
        post_id=str(number),
        post_title=f"All about the {thing}",
        post_excerpt="",
        post_content=f"## How much is the {thing}?\n\nThe {thing} was bought for £{price or 1000 + number} in May."
        + (
            f"\n\n## How old is the {thing}?\n\nThe {thing} was built in {1500 + number}."
            if number % 4 == 0
            else ""
        ),
        post_date=f"2025-01-{number % 28 + 1:02d}T08:00:00Z",
        post_author=f"Ada Miller{number // 3}",
        post_categories=["Blogs"],
        post_tags=[],
        post_url=f"http://s/{number}",
    )


def made(documents: list[Document]) -> tuple[Split, StepCount]:
    return make_examples(Corpus(documents), SPEC, lambda *_, **__: None)


def rows(split: Split) -> list[Example]:
    return [*split.training, *split.evaluation, *split.transfer]


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return [document(number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def built(documents: list[Document]) -> tuple[Split, StepCount]:
    return made(documents)


def test_every_draft_is_kept_or_counted(built):
    split, counted = built

    assert counted.is_balanced
    assert len(split.training) > 200


def test_no_document_of_the_transfer_set_is_seen_in_training(documents, built):
    split, _ = built
    untaught = held_out(documents, SPEC.split)

    assert len(untaught) == 20
    assert {row.document_url for row in split.transfer} <= untaught
    assert not untaught & {row.document_url for row in (*split.training, *split.evaluation)}
    shown = "\n".join(message.content for row in split.training for message in row.prompt)
    titles = [row.post_title for row in documents if row.post_url in untaught]
    assert not [title for title in titles if re.search(rf"{re.escape(title)}\b", shown)]


def test_the_transfer_set_asks_what_sources_tell(built):
    split, _ = built

    assert split.transfer
    assert not {row.kind for row in split.transfer} & WITHOUT_SOURCES


def test_no_question_is_taught_and_asked(built):
    split, _ = built

    taught = {normalised(row.question) for row in split.training}
    assert not taught & {normalised(row.question) for row in (*split.evaluation, *split.transfer)}


def test_an_edited_post_changes_its_own_rows_and_those_that_show_it(documents, built):
    edited = document(7, price=9876)
    before = {row.id: row for row in rows(built[0])}

    after = {row.id: row for row in rows(made([*documents[:7], edited, *documents[8:]])[0])}

    assert list(before) == list(after)
    changed = {name for name in before if before[name] != after[name]}
    assert changed
    for name in changed:
        shows_it = any("9876" in message.content for message in after[name].prompt)
        assert shows_it or after[name].document_url == edited.post_url


def test_a_site_that_is_larger_than_what_is_remembered_gives_the_same_rows(documents, built, monkeypatch):
    monkeypatch.setattr(corpus, "MOST_SEARCHES", 7)
    monkeypatch.setattr(corpus, "MOST_FACTS", 3)

    assert rows(made(documents)[0]) == rows(built[0])
