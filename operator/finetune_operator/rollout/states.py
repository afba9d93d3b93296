"""The machine of a rollout: record, patch, watch, verify; or put back. Pure.

Each step is written into the status before the next one acts on it, so that an operator may die between any two:
the previous model is on record before the patch goes out, and the decision to go back before the way back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import ModelPointer, Reason, RolloutPhase, RolloutStatus
from finetune_operator.actions import Action, PatchTarget, deletions
from finetune_operator.child_names import smoke_test_name
from finetune_operator.observed import NO_MODEL, DeploymentFacts, Observed, Run
from finetune_operator.rollout.keeping import lost_its_model
from finetune_operator.rollout.patch import payload, pointer_in, pointer_to, server_container
from finetune_operator.rollout.preflight import Obstacle, conflict, obstacle_to_patch, obstacle_to_start
from finetune_operator.rollout.progress import Complete, Failed, Waiting, pods_with, watch
from finetune_operator.rollout.quarantine import held_back, is_spoilt, quarantine, quarantine_words
from finetune_operator.rollout.record import LIVE, record
from finetune_operator.rollout.reverts import after_revert, put_back_words
from finetune_operator.rollout.room import ModelNeed, need_of, surge_words
from finetune_operator.rollout.service_check import service_words, too_many_errors
from finetune_operator.rollout.smoke_test import RETRY_SECONDS, Passed, outcome, smoke_test
from finetune_operator.rollout.targets import current_target, target_after, targets
from finetune_operator.rollout.verification import verified
from finetune_operator.timestamps import in_words, seconds_since, to_rfc3339

AT_ONCE = 0.0
LOOK_AGAIN_SECONDS = 2.0
OBSTACLE_SECONDS = 30.0
PASSING_SECONDS = 5.0
REVERT_PATIENCE_SECONDS = 30.0
"""Whoever took the values out may still be at work."""
MESSAGE_LENGTH = 1024
"""Of the status."""
LONGEST_COMMAND = 900
"""What leaves room for the words before it; a command is told whole or not at all."""
OVER = frozenset(
    {RolloutPhase.SUCCEEDED, RolloutPhase.ROLLED_BACK, RolloutPhase.ROLLBACK_FAILED, RolloutPhase.SUPERSEDED}
)
TOUCHED = frozenset({RolloutPhase.PROGRESSING, RolloutPhase.VERIFYING, RolloutPhase.ROLLING_BACK})
"""The target may hold our values, and it is not decided whether they stay."""


@dataclass(frozen=True)
class Step:
    """What comes next."""

    rollout: RolloutStatus | None
    actions: tuple[Action, ...] = ()
    message: str = ""
    obstacle: Obstacle | None = None
    requeue_after: float | None = None


def rehearsal(run: Run, deployment: DeploymentFacts) -> dict[str, object] | None:
    """The patch to try as a dry run before deciding, or None when none is near.

    Before the first Job too: a field conflict is found out before a GPU is asked for, not after.
    """
    target = next((one for one in targets(run.spec) if one.name == deployment.name), None)
    if target is None or obstacle_to_start(target, Observed(target=deployment)) is not None:
        return None
    rollout = run.status.rollout
    if rollout is None:
        artifact = run.status.artifact
        pointer = (
            pointer_to(artifact) if artifact else ModelPointer(uri="x", manifest_sha256="x", model_id="x")
        )
        return payload(target, deployment, pointer)
    if rollout.current is not None and (
        rollout.phase is RolloutPhase.PREFLIGHT or lost_its_model(run, deployment)
    ):
        return payload(target, deployment, rollout.current)
    if rollout.phase is RolloutPhase.ROLLING_BACK:
        return payload(target, deployment, rollout.previous or NO_MODEL)
    return None


def advance(run: Run, wanted: ModelPointer, observed: Observed, now: datetime) -> Step:
    """The next step towards `wanted` being served, or back from it."""
    target = current_target(run)
    if target is None:
        raise ValueError("a rollout without a target")
    rollout = run.status.rollout
    if rollout is not None and rollout.phase in OVER:
        return Step(rollout)
    step = _next(run, rollout, target, wanted, observed, now)
    if step.rollout is None or not is_spoilt(step.rollout):
        return step
    kept = quarantine(run, target.name, wanted, step.rollout, observed.recorded)
    words = {"quarantine": quarantine_words(run.namespace, target.name, wanted)[:1024]}
    return replace(step, rollout=step.rollout.model_copy(update=words), actions=(*step.actions, kept))


def _next(
    run: Run,
    rollout: RolloutStatus | None,
    target: DeploymentTarget,
    wanted: ModelPointer,
    observed: Observed,
    now: datetime,
) -> Step:
    if rollout is None or rollout.phase is RolloutPhase.PREFLIGHT:
        return _prepare(run, rollout, target, wanted, observed, now)
    if rollout.phase is RolloutPhase.SMOKE_TESTING:
        return _try_out(run, rollout, target, wanted, observed, now)
    if rollout.phase is RolloutPhase.ROLLING_BACK:
        return _put_back(run, rollout, target, observed, now)
    return _watch(run, rollout, target, wanted, observed, now)


def holds_unwritten_patch(run: Run, observed: Observed) -> bool:
    """The target was patched, and the status does not say so: the operator died, or the run was edited, in between."""
    rollout, deployment, target = run.status.rollout, observed.target, current_target(run)
    return (
        rollout is not None
        and rollout.phase is RolloutPhase.PREFLIGHT
        and rollout.current not in (None, rollout.previous)
        and target is not None
        and deployment is not None
        and deployment.uid == rollout.target_uid
        and pointer_in(target, deployment) == rollout.current
    )


def _need(run: Run, deployment: DeploymentFacts, target: DeploymentTarget) -> ModelNeed | None:
    artifact = run.status.artifact
    server = server_container(target, deployment)
    return need_of(artifact, run.spec.packaging.gguf, server) if artifact else None


def _prepare(
    run: Run,
    rollout: RolloutStatus | None,
    target: DeploymentTarget,
    wanted: ModelPointer,
    observed: Observed,
    now: datetime,
) -> Step:
    """Record what is there; in the next pass, patch."""
    deployment = observed.target
    if rollout is not None and run.spec.cancel and holds_unwritten_patch(run, observed):
        return _turn_back(rollout, Reason.CANCELLED, "the run was cancelled while its model was put in")
    serves = deployment is not None and pointer_in(target, deployment) == wanted
    if observed.newer_run and not serves:
        return _passed_by(rollout, target, wanted, observed.newer_run)
    need = _need(run, deployment, target) if deployment is not None and not serves else None
    obstacle = obstacle_to_patch(target, observed, need, run.spec.rollout.timeout_seconds)
    if obstacle is None and not serves:
        obstacle = held_back(run.namespace, target.name, wanted, observed.quarantine)
    if obstacle is not None or deployment is None:
        words = obstacle.message if obstacle else ""
        again = OBSTACLE_SECONDS if obstacle is None or obstacle.needs_person else PASSING_SECONDS
        return Step(rollout, message=words, obstacle=obstacle, requeue_after=again)
    live = pointer_in(target, deployment)
    recorded = rollout is not None and rollout.target_uid == deployment.uid and rollout.current == wanted
    reverted = rollout is not None and bool(rollout.reverts)
    if rollout is None or not recorded or (live not in (rollout.previous, wanted) and not reverted):
        record = RolloutStatus(
            phase=RolloutPhase.PREFLIGHT,
            target=f"deployment/{deployment.name}",
            target_uid=deployment.uid,
            current=wanted,
            previous=live,
        )
        if rollout is not None and rollout.current == wanted:
            kept = {
                field: getattr(rollout, field)
                for field in ("done", "done_uids", "service", "smoke_attempts", "smoke_test")
            }
            record = record.model_copy(update=kept)
        words = "; ".join(filter(None, ("the model that is live now is on record", surge_words(deployment))))
        return Step(record, message=words, requeue_after=AT_ONCE)
    if reverted and seconds_since(rollout.reverted_at, now) < REVERT_PATIENCE_SECONDS and live != wanted:
        words = f"{rollout.message}; it is put in once more"
        return Step(rollout, message=words, requeue_after=PASSING_SECONDS)
    if run.spec.rollout.smoke_test.questions and not rollout.smoke_test and live != wanted:
        return _tried_again(rollout, "the model is tried beside the target")
    patched = rollout.model_copy(
        update={"phase": RolloutPhase.PROGRESSING, "patched_at": to_rfc3339(now), "patched_generation": 0}
    )
    patch = PatchTarget(deployment.name, payload(target, deployment, wanted), run.spec.rollout.force)
    return Step(patched, (patch,), f"{rollout.target} is being changed", requeue_after=AT_ONCE)


def _try_out(
    run: Run,
    rollout: RolloutStatus,
    target: DeploymentTarget,
    wanted: ModelPointer,
    observed: Observed,
    now: datetime,
) -> Step:
    """Follow the Job that serves and asks the model; the target stays as it is."""
    deployment = observed.target
    running = deletions(observed.smoke_jobs)
    if deployment is None or deployment.uid != rollout.target_uid:
        gone = f"{rollout.target} is gone" if deployment is None else f"{rollout.target} was made anew"
        return replace(_again(rollout, gone), actions=running)
    if not run.spec.rollout.smoke_test.questions:
        return replace(_again(rollout, "the smoke test is no more asked for"), actions=running)
    name = smoke_test_name(run.name, run.uid, rollout.smoke_attempts)
    job = next((job for job in observed.smoke_jobs if job.name == name), None)
    if job is None:
        test = smoke_test(run, target, deployment, wanted, rollout.smoke_attempts)
        return Step(rollout, (test,), "smoke test: its Job is made", requeue_after=LOOK_AGAIN_SECONDS)
    seen = outcome(target, deployment.shape, job, now)
    if isinstance(seen, Passed):
        passed = {"phase": RolloutPhase.PREFLIGHT, "smoke_test": seen.message[:1000]}
        return Step(
            rollout.model_copy(update=passed), message=f"smoke test: {seen.message}", requeue_after=AT_ONCE
        )
    words = f"smoke test: {seen.message}"
    if isinstance(seen, Failed):
        failed = rollout.model_copy(update={"reason": seen.reason.value})
        return replace(
            _ended(failed, seen.reason, f"{words[:900]}; nothing was changed in {rollout.target}"),
            actions=running,
        )
    if isinstance(seen, Waiting):
        return Step(rollout, message=words, requeue_after=LOOK_AGAIN_SECONDS)
    if job.over and seconds_since(job.failed_at, now) >= RETRY_SECONDS:
        return _tried_again(rollout, f"{words}; it is tried once more")
    remedy = "the model before stays; mend this, or set rollout.smokeTest.questions to 0 to go live without"
    obstacle = Obstacle(Reason.SMOKE_TEST_INCONCLUSIVE, f"{words}; {remedy}")
    return Step(rollout, message=obstacle.message, obstacle=obstacle, requeue_after=PASSING_SECONDS)


def _tried_again(rollout: RolloutStatus, message: str) -> Step:
    """A new Job; its name is in the status before it is made."""
    begun = {"phase": RolloutPhase.SMOKE_TESTING, "smoke_attempts": rollout.smoke_attempts + 1}
    return Step(rollout.model_copy(update=begun), message=message, requeue_after=AT_ONCE)


def _watch(
    run: Run,
    rollout: RolloutStatus,
    target: DeploymentTarget,
    wanted: ModelPointer,
    observed: Observed,
    now: datetime,
) -> Step:
    deployment = observed.target
    elapsed, limits = seconds_since(rollout.patched_at, now), run.spec.rollout
    late = elapsed > limits.timeout_seconds
    if deployment is None:
        words = f"{rollout.target} is gone"
        if late:
            return _ended(rollout, Reason.TARGET_NOT_FOUND, f"{words}; there was nothing to put back")
        if run.spec.cancel:
            return _ended(rollout, Reason.CANCELLED, f"the run was cancelled; {words}, nothing was put back")
        return Step(rollout, message=words, requeue_after=LOOK_AGAIN_SECONDS)
    if deployment.uid != rollout.target_uid:
        return _again(rollout, f"{rollout.target} was made anew")
    if pointer_in(target, deployment) != wanted:
        if not rollout.patched_generation and elapsed < REVERT_PATIENCE_SECONDS:
            words = f"{rollout.target} does not hold the change yet"
            if run.spec.cancel:
                return _turn_back(rollout, Reason.CANCELLED, f"the run was cancelled; {words}")
            return Step(rollout, message=words, requeue_after=LOOK_AGAIN_SECONDS)
        revert = after_revert(target, deployment, rollout)
        if revert.final:
            return _ended(rollout, Reason.REVERTED_BY_OTHER_MANAGER, revert.message)
        return _again(
            rollout.model_copy(
                update={
                    "reverts": rollout.reverts + 1,
                    "reverted_at": to_rfc3339(now),
                    "message": revert.message[:1000],
                }
            ),
            revert.message,
        )
    if not rollout.patched_generation:
        rollout = rollout.model_copy(update={"patched_generation": deployment.generation})
    pods = pods_with(observed.target_pods, wanted)
    seen = watch(target, deployment, pods, rollout.patched_at, now)
    told_before = rollout.service  # of the targets before this one
    asked = {"service": "; ".join(filter(None, (told_before, service_words(observed.service))))[:1000]}
    errors = (
        too_many_errors(observed.service, limits.service, deployment.shape, deployment.replicas)
        if deployment.replicas
        else None  # nobody is there to answer
    )
    if isinstance(seen, Complete) and rollout.phase is RolloutPhase.VERIFYING:
        answers, seen = verified(run, target, pods, wanted, observed, elapsed, now)
        if errors is not None and not isinstance(seen, Failed):
            seen = errors
        # the window has an end even where pods keep coming, and a model that serves is not late for it
        late = late and not isinstance(answers, Complete)
        if isinstance(seen, Complete):
            kept = record(
                run, deployment.name, wanted, rollout.previous, LIVE, observed.history, observed.quarantine
            )
            told = rollout.model_copy(update=asked)
            return replace(_done(run, told, deployment.name, wanted), actions=(kept,))
    elif errors is not None and not isinstance(seen, Failed):
        seen = errors
    elif isinstance(seen, Complete):
        verifying = rollout.model_copy(update={"phase": RolloutPhase.VERIFYING})
        return Step(verifying, message="asking the new pods for their model", requeue_after=AT_ONCE)
    if isinstance(seen, Failed):
        return _turn_back(rollout.model_copy(update=asked), seen.reason, seen.message)
    words, cause = (seen.message, seen.cause) if isinstance(seen, Waiting) else ("", None)
    if run.spec.cancel:
        return _turn_back(rollout, Reason.CANCELLED, "the run was cancelled while the model was rolling out")
    if late:
        limit = in_words(limits.timeout_seconds)
        return _turn_back(
            rollout,
            cause or Reason.PROGRESS_DEADLINE_EXCEEDED,
            f"not done within {limit} (rollout.timeoutSeconds): {words}",
        )
    return Step(rollout, message=words, requeue_after=LOOK_AGAIN_SECONDS)


def _done(run: Run, rollout: RolloutStatus, name: str, wanted: ModelPointer) -> Step:
    """A target serves the model: on to the next one, or the end."""
    words = "; ".join(filter(None, (f"{rollout.target} serves {wanted.model_id}", rollout.service)))
    following = target_after(run, rollout)
    done = {
        "done": [*rollout.done, name],
        "done_uids": {**rollout.done_uids, name: rollout.target_uid},
    }
    if following is None:
        won = rollout.model_copy(update={"phase": RolloutPhase.SUCCEEDED, **done})
        return Step(won, message=words)
    begun = RolloutStatus(
        phase=RolloutPhase.PREFLIGHT,
        target=f"deployment/{following.name}",
        current=wanted,
        smoke_attempts=rollout.smoke_attempts,
        smoke_test=rollout.smoke_test,
        service=rollout.service,
    ).model_copy(update=done)
    return Step(begun, message=f"{words}; {begun.target} is next", requeue_after=AT_ONCE)


def _put_back(
    run: Run, rollout: RolloutStatus, target: DeploymentTarget, observed: Observed, now: datetime
) -> Step:
    """Back to the previous values, once; then watch them come up."""
    deployment, previous = observed.target, rollout.previous or NO_MODEL
    if deployment is None or deployment.uid != rollout.target_uid:
        return _ended(rollout, Reason(rollout.reason), f"{rollout.message}; {rollout.target} is gone since")
    now_there = pointer_in(target, deployment)
    if now_there == rollout.current and now_there != previous:
        if (obstacle := conflict(deployment.name, observed.refusal)) is not None:
            return _stuck(run, rollout, target, obstacle.message)
        returning = rollout.model_copy(
            update={"patched_at": to_rfc3339(now), "patched_generation": deployment.generation}
        )
        patch = PatchTarget(deployment.name, payload(target, deployment, previous), run.spec.rollout.force)
        return Step(returning, (patch,), rollout.message, requeue_after=AT_ONCE)
    if now_there != previous:
        return _ended(
            rollout, Reason(rollout.reason), f"{rollout.message}; somebody else changed the target since"
        )
    name = previous.model_id or "no model, as before"
    if deployment.paused:
        resume = f"kubectl rollout resume deployment/{deployment.name} --namespace={run.namespace}"
        words = (
            f"{name} is back in the template, and {rollout.target} is paused; its pods follow after: {resume}"
        )
        return _ended(rollout, Reason(rollout.reason), f"{rollout.message[:500]}; {words}")
    seen = watch(target, deployment, (), rollout.patched_at, now)
    if isinstance(seen, Complete):
        return _ended(rollout, Reason(rollout.reason), f"{rollout.message}; {name} is back")
    if isinstance(seen, Failed) or seconds_since(rollout.patched_at, now) > run.spec.rollout.timeout_seconds:
        return _stuck(run, rollout, target, seen.message)
    return Step(rollout, message=rollout.message, requeue_after=LOOK_AGAIN_SECONDS)


def _again(rollout: RolloutStatus, message: str) -> Step:
    """Start over: look at the target and record it anew, but keep what was live before us when it is the same."""
    again = rollout.model_copy(
        update={"phase": RolloutPhase.PREFLIGHT, "patched_at": "", "patched_generation": 0}
    )
    return Step(again, message=message, requeue_after=AT_ONCE)


def _passed_by(
    rollout: RolloutStatus | None, target: DeploymentTarget, wanted: ModelPointer, newer: str
) -> Step:
    """A later run was quicker: its model stays."""
    words = (
        f'run "{newer}" was made later and is live in deployment/{target.name}; this model was not rolled out'
    )
    begun = rollout or RolloutStatus(
        phase=RolloutPhase.PREFLIGHT, target=f"deployment/{target.name}", current=wanted
    )
    over = begun.model_copy(
        update={"phase": RolloutPhase.SUPERSEDED, "reason": Reason.SUPERSEDED.value, "message": words}
    )
    return Step(over, message=words)


def _turn_back(rollout: RolloutStatus, reason: Reason, message: str) -> Step:
    """Write down that it failed and why; the next pass puts the old values back, where others were there."""
    if rollout.previous is not None and rollout.previous == rollout.current:
        words = f"{rollout.target} had this model before the run; nothing was changed, and it stays"
        return _ended(rollout.model_copy(update={"patched_at": ""}), reason, f"{message[:700]}; {words}")
    back = rollout.model_copy(
        update={"phase": RolloutPhase.ROLLING_BACK, "reason": reason.value, "message": message[:1000]}
    )
    return Step(back, message=message, requeue_after=AT_ONCE)


def _ended(rollout: RolloutStatus, reason: Reason, message: str) -> Step:
    if rollout.done:
        message = f"{message[:800]}; already live and left so: {', '.join(rollout.done)}"
    over = rollout.model_copy(
        update={"phase": RolloutPhase.ROLLED_BACK, "reason": reason.value, "message": message[:1024]}
    )
    return Step(over, message=message)


def _stuck(run: Run, rollout: RolloutStatus, target: DeploymentTarget, problem: str) -> Step:
    """The way back failed: say what a person must run."""
    command = f". Run: {put_back_words(run.namespace, target, rollout.previous or NO_MODEL)}"
    if len(command) > LONGEST_COMMAND:
        command = ". Put the values of status.rollout.previous into the two containers"
    facts = f"{rollout.message[:300]}; the previous model could not be put back: {problem[:300]}"
    message = f"{facts[: MESSAGE_LENGTH - len(command)]}{command}"
    over = rollout.model_copy(update={"phase": RolloutPhase.ROLLBACK_FAILED, "message": message})
    return Step(over, message=message)
