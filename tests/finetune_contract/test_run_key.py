"""The run key: what changes the model changes it, what only looks at the work does not."""

from __future__ import annotations

import pytest

from finetune_contract.run_key import run_key
from finetune_contract.run_spec import FineTuneRunSpec


def key_of(**training: object) -> str:
    spec = FineTuneRunSpec.model_validate(
        {
            "baseModel": {"uri": "hf://a/b"},
            "dataset": {"sources": [{"name": "site", "wordpress": {"url": "https://example.org"}}]},
            "store": {"s3": {"bucket": "models"}},
            "training": training,
        }
    )
    return run_key(spec, "b" * 64, "d" * 64, version="1")


@pytest.mark.parametrize("field", [{"seed": 1}, {"learningRate": 0.1}, {"lora": {"rank": 4}}])
def test_another_way_of_training_is_another_model(field: dict[str, object]) -> None:
    assert key_of(**field) != key_of()


def test_to_look_more_often_is_no_other_model() -> None:
    assert key_of(evaluateEverySteps=5) == key_of()


def test_a_training_without_a_sweep_keeps_the_key_that_it_had_before_there_were_sweeps() -> None:
    assert key_of() == "78e170d444acbe3936d26776f7d8fd55d77468c19cb42b19f89dc6ac25f6d257"


def test_a_sweep_is_another_model() -> None:
    assert key_of(sweep={"rank": [8, 16]}) != key_of()


def test_how_many_pods_share_a_sweep_is_no_other_model() -> None:
    assert key_of(sweep={"rank": [8, 16], "parallelism": 2}) == key_of(sweep={"rank": [8, 16]})
    assert (
        key_of(sweep={"rank": [8, 16]}) == "95979cb7ce8d43423f6bf075839e7ba60e79956067f5f074b1c621fa9c3198e0"
    )
