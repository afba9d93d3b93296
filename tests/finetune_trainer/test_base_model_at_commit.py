"""Every stage after the dataset takes the base model that the dataset stage found, wherever its branch is by then."""

from __future__ import annotations

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.stage_protocol import RUN_FILE
from finetune_trainer.__main__ import at_commit, build_parser

SPEC = FineTuneRunSpec.model_validate(
    {
        "baseModel": {
            "uri": "hf://google/gemma-2-2b@main",
            "tokenSecretRef": {"name": "hugging-face", "key": "token"},
        },
        "dataset": {"sources": [{"name": "blog", "wordpress": {"url": "https://blog.example.org"}}]},
        "store": {"s3": {"bucket": "models"}},
    }
)
PINNED = "hf://google/gemma-2-2b@" + "c" * 40


def test_the_address_at_its_commit_takes_the_place_of_the_specs() -> None:
    arguments = build_parser().parse_args(["train", "--run", RUN_FILE, "--base-model", PINNED])

    pinned = at_commit(SPEC, arguments.base_model)

    assert pinned.base_model.uri == PINNED
    assert pinned.base_model.token_secret_ref == SPEC.base_model.token_secret_ref
    assert pinned.training == SPEC.training


def test_without_one_the_spec_stays_as_it_is() -> None:
    arguments = build_parser().parse_args(["train", "--run", RUN_FILE])

    assert at_commit(SPEC, arguments.base_model) is SPEC
