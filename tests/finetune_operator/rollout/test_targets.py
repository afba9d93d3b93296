"""Several Deployments get the model one after the other; one that fails stops the row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.run_status import Phase, Reason, RolloutPhase
from finetune_operator.actions import Decision, PatchTarget, WriteRecord
from finetune_operator.lifecycle import decide
from finetune_operator.observed import Observed, Run, ServedModel, ServiceFacts, Tally
from finetune_operator.rollout.targets import current_target, targets
from tests.finetune_operator.samples import (
    ALL_STAGES,
    NEW_MODEL,
    NOON,
    OLD_MODEL,
    a_deployment,
    a_rollout,
    a_run,
    a_spec,
    a_status,
    after,
    condition,
    later,
    seen,
)

OTHERS = {"deployment": {"name": "chat", "others": ["shop", "help"], "serverContainer": "model-server"}}


def three_targets(**status: Any) -> Run:
    return a_run(a_status(ALL_STAGES, **status), rollout=a_rollout(target=OTHERS))


def there(name: str, model: Any = OLD_MODEL, **changes: Any) -> Observed:
    target = replace(a_deployment(model), name=name, uid=f"{name}-uid", **changes)
    return seen(target=target, served=(ServedModel(f"{name}-1", model.model_id),))


def rolled(run: Run, name: str) -> tuple[Run, Decision]:
    """The run once its current target serves the model: record, patch, watch, verify."""
    for model in (OLD_MODEL, OLD_MODEL, NEW_MODEL):
        run = after(run, decide(run, there(name, model), NOON))
    decision = decide(run, there(name, NEW_MODEL), later(1))
    return after(run, decision), decision


def test_each_gets_the_model_once_the_one_before_serves_it_and_the_last_ends_the_run():
    run, ends = three_targets(), []
    for name in ("chat", "shop", "help"):
        assert current_target(run) == targets(run.spec)[["chat", "shop", "help"].index(name)]
        run, decision = rolled(run, name)
        ends.append(decision)

    assert [end.status.phase for end in ends] == [Phase.ROLLING_OUT, Phase.ROLLING_OUT, Phase.SUCCEEDED]
    assert run.status.rollout is not None
    assert run.status.rollout.done == ["chat", "shop", "help"]
    assert run.status.rollout.target == "deployment/help"


def test_what_readers_met_is_told_of_each():
    def answered_by(name: str) -> Observed:
        service = ServiceFacts(f"{name}-site", watched=Tally(answered=9, named=((NEW_MODEL.model_id, 9),)))
        return replace(there(name, NEW_MODEL), service=service)

    run = three_targets()
    for name in ("chat", "shop"):
        for model in (OLD_MODEL, OLD_MODEL, NEW_MODEL):
            run = after(run, decide(run, there(name, model), NOON))
        run = after(run, decide(run, answered_by(name), later(1)))

    assert run.status.rollout is not None
    assert run.status.rollout.service == (
        'Service "chat-site" answered 9 of 9 requests; Service "shop-site" answered 9 of 9 requests'
    )


def test_the_uid_of_each_is_remembered():
    run = three_targets()
    for name in ("chat", "shop", "help"):
        run, _ = rolled(run, name)

    assert run.status.rollout is not None
    assert run.status.rollout.done_uids == {"chat": "chat-uid", "shop": "shop-uid", "help": "help-uid"}


def test_each_has_its_own_record_and_its_own_previous_model():
    run, first = rolled(three_targets(), "chat")
    recorded = decide(run, there("shop"), later(2))
    patched = decide(after(run, recorded), there("shop"), later(3))

    (kept,) = first.actions
    assert isinstance(kept, WriteRecord)
    assert kept.manifest["metadata"]["name"] == "chat-model"  # type: ignore[index]
    assert recorded.status.rollout is not None
    assert recorded.status.rollout.previous == OLD_MODEL
    assert recorded.status.rollout.done == ["chat"]
    assert isinstance(patched.actions[0], PatchTarget)
    assert patched.actions[0].deployment == "shop"


def test_one_that_fails_gets_its_model_back_and_those_after_it_are_left_as_they_are():
    run, _ = rolled(three_targets(), "chat")
    for model in (OLD_MODEL, OLD_MODEL):
        run = after(run, decide(run, there("shop", model), later(2)))
    broken = replace(there("shop", NEW_MODEL), served=(ServedModel("shop-1", "sha256:other"),))
    for _ in range(2):
        run = after(run, decide(run, broken, later(3)))
    back = decide(run, there("shop", NEW_MODEL), later(4))
    ended = decide(after(run, back), there("shop"), later(5))

    assert isinstance(back.actions[0], PatchTarget)
    assert back.actions[0].deployment == "shop"
    assert ended.status.phase is Phase.ROLLED_BACK
    assert condition(ended, "RolledOut").reason == Reason.WRONG_MODEL_SERVED
    assert condition(ended, "RolledOut").message.split("; ")[2] == "already live and left so: chat"


def test_the_model_is_tried_once_for_all_of_them():
    run = a_run(a_status(ALL_STAGES), rollout=a_rollout(target=OTHERS, smokeTest={"questions": 5}))
    status = three_targets().status
    run = replace(run, status=status)
    recorded = after(run, decide(run, there("chat"), NOON))
    assert recorded.status.rollout is not None
    passed = recorded.status.rollout.model_copy(update={"smoke_test": "5 of 5"})
    run, _ = rolled(replace(recorded, status=recorded.status.model_copy(update={"rollout": passed})), "chat")

    recorded = after(run, decide(run, there("shop"), later(2)))
    patched = decide(recorded, there("shop"), later(3))

    assert patched.status.rollout is not None
    assert patched.status.rollout.phase is RolloutPhase.PROGRESSING


def test_one_that_is_missing_is_named_before_anything_is_started():
    run = a_run(rollout=a_rollout(target=OTHERS))

    decision = decide(run, Observed(missing_target="help", deployments=("chat", "shop")), NOON)

    assert decision.actions == ()
    assert condition(decision, "RolledOut").message.startswith(
        'spec.rollout.target.deployment.others: Deployment "help" does not exist'
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": {"deployment": {"name": "chat", "others": ["shop", "chat"]}}}, "chat"),
        ({"target": OTHERS, "mode": "Publish"}, "is set with mode Publish"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        FineTuneRunSpec.model_validate(a_spec(rollout=a_rollout(**changes)))
