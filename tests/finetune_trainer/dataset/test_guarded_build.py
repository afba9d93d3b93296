"""What the dataset stage stores of secrets and personal data in posts: nothing of the one, and the other by policy."""

from __future__ import annotations

import gzip

import pytest

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_trainer.dataset.build import ExactBaseModel, build_dataset
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.local_folder import LocalFolder

TOKEN = "ghp_" + "a8Bc9dEf0gHi1jKl2mNo3pQr4sTu5vWx6yZ7"
EMAIL = "rosa@tidebox.example"


@pytest.mark.parametrize(("policy", "is_kept"), [("off", True), ("flag", True), ("redact", False)])
def test_no_secret_and_no_redacted_address_is_in_a_file_of_the_dataset(wordpress, tmp_path, policy, is_kept):
    for number in range(1, 13):
        wordpress.add(
            number,
            f"Wheel {number}",
            f"<h2>Weight of wheel {number}</h2><p>Wheel {number} weighs {number}5 kilograms, says {EMAIL}.</p>"
            f"<h2>Key of wheel {number}</h2><p>The key of wheel {number} is {TOKEN} and nothing else.</p>",
            author=1,
        )
    spec = {
        "baseModel": {"uri": "hf://owner/name@main"},
        "dataset": {
            "sources": [{"name": "site", "wordpress": {"url": wordpress.url}}],
            "minDocuments": 5,
            "minExamples": 10,
            "personalData": policy,
        },
        "store": {"s3": {"bucket": "models"}},
    }
    store = LocalFolder(tmp_path / "store")

    build_dataset(
        StageContext(
            run_name="run",
            spec=FineTuneRunSpec.model_validate(spec),
            work_folder=tmp_path / "work",
            store=store,
            progress=lambda *_, **__: None,
            environment={},
            on_cluster=False,
        ),
        lambda _: ExactBaseModel("hf://owner/name@main", "base-digest"),
    )

    files = {key: store.read(key) or b"" for key in store.list("") if key.startswith("datasets/")}
    assert any(key.endswith("train.jsonl") for key in files)
    assert not any(TOKEN.encode() in content for content in files.values())
    assert any(EMAIL.encode() in content for content in files.values()) is is_kept
    remembered = [gzip.decompress(store.read(key) or b"") for key in store.list("harvests/")]
    assert remembered
    assert not any(TOKEN.encode() in content for content in remembered)
