"""Whether what was rolled out is served: by every pod, for some time, and through the target's Service. Pure."""

from __future__ import annotations

from datetime import datetime

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import ModelPointer, Reason
from finetune_operator.observed import Observed, PodFacts, Run, ServedModel
from finetune_operator.rollout.progress import Complete, Failed, Progress, Waiting
from finetune_operator.rollout.service_check import ANSWER_SECONDS, questions_for, through_service
from finetune_operator.timestamps import in_words, seconds_since


def verified(
    run: Run,
    target: DeploymentTarget,
    pods: tuple[PodFacts, ...],
    wanted: ModelPointer,
    observed: Observed,
    elapsed: float,
    now: datetime,
) -> tuple[Progress, Progress]:
    """What the pods say of their model, and what is made of everything that was asked and watched."""
    limits = run.spec.rollout
    deployment = observed.target
    answers = verify(observed.served, wanted.model_id, deployment.replicas if deployment else 1)
    window = steady(target, pods, limits.observation_seconds, now)
    if isinstance(answers, Failed) or isinstance(window, Failed):
        return answers, window if isinstance(window, Failed) else answers
    if not isinstance(answers, Complete):
        return answers, answers
    longest = limits.timeout_seconds + limits.observation_seconds
    questions = questions_for(run.status.evaluation, limits.service)
    through = through_service(
        observed.service,
        wanted.model_id,
        limits.service,
        questions,
        late=elapsed > longest + ANSWER_SECONDS * len(questions),
    )
    over = isinstance(window, Complete) or elapsed > longest
    return answers, through if isinstance(through, Failed) or over else window


def verify(served: tuple[ServedModel, ...], model_id: str, replicas: int) -> Progress:
    """Compare each pod's answer with the model that must be served.

    Args:
        served: one answer a ready pod of the new template.
    """
    for answer in served:
        if answer.model and answer.model != model_id:
            return Failed(
                Reason.WRONG_MODEL_SERVED,
                f"pod {answer.pod} says that it serves {answer.model}, not {model_id}",
            )
    if replicas == 0:
        return Waiting(
            "the Deployment was scaled to 0, so nothing can be asked; scale it up", Reason.NO_REPLICAS
        )
    silent = [answer for answer in served if not answer.model]
    if silent:
        return Waiting(f"pod {silent[0].pod} has not named its model yet: {silent[0].problem}")
    if len(served) < max(1, replicas):
        return Waiting(f"{len(served)} of {replicas} pods have named their model")
    return Complete()


def steady(target: DeploymentTarget, pods: tuple[PodFacts, ...], seconds: float, now: datetime) -> Progress:
    """Whether the model servers keep running for so many seconds.

    A Deployment is complete as soon as its pods were ready for an instant. What crashed after that, and is ready again,
    would crash once more.
    """
    youngest = seconds
    for pod in pods:
        server = pod.container(target.server_container)
        if server is None:
            continue
        ended, before = server.terminated, server.last_terminated
        crashed = ended if ended is not None or not server.restarts else before
        if crashed is not None and crashed.exit_code != 0:
            words = f": {crashed.message.strip()}" if crashed.message.strip() else ""
            return Failed(
                Reason.CONTAINER_CRASHED,
                f'container "{server.name}" of pod {pod.name} crashed after it was started (exit code '
                f"{crashed.exit_code}, {server.restarts} restarts){words}",
            )
        ran = seconds_since(server.started_at, now)
        if (server.started_at or ended is not None) and ran < seconds:
            youngest = min(youngest, ran)
    if youngest < seconds:
        return Waiting(f"the new pods are watched: {in_words(youngest)} of {in_words(seconds)}")
    return Complete()
