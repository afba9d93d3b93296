"""Who took the values out, and what cures it."""

from __future__ import annotations

import pytest

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import ModelPointer, RolloutPhase, RolloutStatus
from finetune_operator.observed import NO_MODEL
from finetune_operator.rollout.reverts import after_revert, cure, put_back_words
from finetune_operator.rollout.target_shape import TargetShape, Writer
from tests.finetune_operator.samples import NEW_MODEL, OLD_MODEL, a_deployment

TARGET = DeploymentTarget(name="chat")


def rolling(reverts: int = 0) -> RolloutStatus:
    return RolloutStatus(
        phase=RolloutPhase.PROGRESSING,
        target="deployment/chat",
        current=NEW_MODEL,
        previous=OLD_MODEL,
        patched_generation=4,
        reverts=reverts,
    )


@pytest.mark.parametrize(
    ("live", "writers", "reverts", "final"),
    [
        (NO_MODEL, (Writer("helm"),), 0, False),
        (NEW_MODEL.model_copy(update={"uri": ""}), (Writer("helm"),), 0, False),
        (NO_MODEL, (), 0, False),
        (NO_MODEL, (Writer("helm"),), 1, True),
        (NO_MODEL, (Writer("helm", owns=("MODEL_URI",)),), 0, True),
        (OLD_MODEL, (Writer("kubectl", owns=("MODEL_URI",)),), 0, True),
        (ModelPointer(model_id="sha256:third"), (), 0, True),
    ],
)
def test_values_are_put_in_again_only_once_and_only_where_nobody_declares_others(
    live, writers, reverts, final
):
    revert = after_revert(TARGET, a_deployment(live, shape=TargetShape(writers=writers)), rolling(reverts))

    assert revert.final is final
    assert '"another field manager" changed' in revert.message or any(
        f'"{writer.manager}" changed' in revert.message for writer in writers
    )


def test_the_owner_of_the_values_is_named_rather_than_whoever_wrote_last():
    writers = (Writer("argocd-controller", owns=("MODEL_URI",)), Writer("kubectl-edit"))

    revert = after_revert(TARGET, a_deployment(OLD_MODEL, shape=TargetShape(writers=writers)), rolling())

    assert '"argocd-controller" changed' in revert.message


@pytest.mark.parametrize(
    ("manager", "words"),
    [
        ("argocd-controller", "ServerSideApply=true"),
        ("kustomize-controller", "Kustomization"),
        ("helm-controller", "spec.driftDetection.ignore"),
        ("Helm", "--force-replace"),
        ("kubectl-client-side-apply", "rollout undo"),
        ("terraform", "what terraform applies"),
    ],
)
def test_every_manager_has_its_cure(manager, words):
    found = cure(TARGET, a_deployment(), Writer(manager, owns=("MODEL_URI",)))

    assert words in found
    assert "Remove MODEL_URI from" in found


@pytest.mark.parametrize("generation", [0, 4])
def test_the_whole_message_fits_into_the_status(generation):
    writers = (Writer("argocd-controller", owns=("MODEL_URI", "MODEL_MANIFEST_SHA256", "MODEL_ID")),)

    rollout = rolling().model_copy(update={"patched_generation": generation})
    revert = after_revert(TARGET, a_deployment(OLD_MODEL, shape=TargetShape(writers=writers)), rollout)

    assert len(revert.message) <= 1024


def test_the_command_that_puts_a_model_back_takes_out_what_was_not_there_and_leaves_other_containers_alone():
    assert put_back_words("demo", TARGET, ModelPointer(uri="s3://a")) == (
        "kubectl set env deployment/chat --namespace=demo --containers=model-fetch MODEL_URI=s3://a "
        "MODEL_MANIFEST_SHA256- && "
        "kubectl set env deployment/chat --namespace=demo --containers=model-server MODEL_ID-"
    )
