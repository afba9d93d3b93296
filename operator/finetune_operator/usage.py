"""What attempts cost: GPU seconds, the part of them that was lost, and a price. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.run_status import Attempt, FineTuneRunStatus, ForgottenAttempts, Usage
from finetune_contract.stage_protocol import ExitCode, Stage
from finetune_operator.pod_use import held_seconds
from finetune_operator.stages import STAGE_BY_NAME

RUNNING = "Running"
SUCCEEDED = "Succeeded"
SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class Prices:
    """What an hour of one GPU costs, by the name of its extended resource."""

    an_hour: Mapping[str, float] = field(default_factory=dict)
    currency: str = ""


NO_PRICES = Prices()


def gpus(spec: FineTuneRunSpec, stage: Stage) -> int:
    """GPUs that a pod of the stage holds."""
    gpu, definition = spec.resources.train.gpu, STAGE_BY_NAME[stage]
    if gpu is None or not definition.uses_gpu:
        return 0
    return gpu.count if definition.spreads else 1


def accounted(attempts: Sequence[Attempt], spec: FineTuneRunSpec) -> list[Attempt]:
    """The attempts with what they cost, and what of it was lost.

    Work is lost when no later attempt went on from it. Until one shows from where it goes on, only a training that
    saved a checkpoint at its end has lost nothing.
    """
    result: list[Attempt] = []
    for attempt in attempts:
        cost = held_seconds(attempt) * gpus(spec, attempt.stage)
        lost = 0
        if cost and attempt.result not in (RUNNING, SUCCEEDED):
            lost = round(cost * _lost_share(attempt, attempts))
        result.append(attempt.model_copy(update={"gpu_seconds": cost, "lost_gpu_seconds": lost}))
    return result


def usage(status: FineTuneRunStatus, spec: FineTuneRunSpec, prices: Prices) -> Usage:
    """All attempts together, those too that fell off the list."""
    gpu_seconds = spent_gpu_seconds(status)
    return Usage(
        gpu_seconds=gpu_seconds,
        lost_gpu_seconds=_sum(status, "lost_gpu_seconds"),
        held_seconds=held(status),
        queue_seconds=_sum(status, "queue_seconds"),
        cost=_price(gpu_seconds, spec, prices),
    )


def spent_gpu_seconds(status: FineTuneRunStatus) -> int:
    """Seconds times GPUs of all attempts."""
    return _sum(status, "gpu_seconds")


def held(status: FineTuneRunStatus) -> int:
    """Seconds that pods of training and evaluation held nodes."""
    mine = [attempt for attempt in status.attempts if STAGE_BY_NAME[attempt.stage].uses_gpu]
    old = [entry for entry in status.forgotten if STAGE_BY_NAME[entry.stage].uses_gpu]
    return sum(held_seconds(attempt) for attempt in mine) + sum(entry.held_seconds for entry in old)


def with_forgotten(entries: Iterable[ForgottenAttempts], attempt: Attempt) -> list[ForgottenAttempts]:
    """The sums with one more attempt in them."""
    result = list(entries)
    place = next(
        (i for i, e in enumerate(result) if (e.stage, e.result) == (attempt.stage, attempt.result)), None
    )
    if place is None:
        result.append(ForgottenAttempts(stage=attempt.stage, result=attempt.result))
        place = len(result) - 1
    entry = result[place]
    taken = dict(entry.taken)
    for use in attempt.pods:
        if use.taken_by:
            taken[use.taken_by] = taken.get(use.taken_by, 0) + use.pods
    result[place] = entry.model_copy(
        update={
            "count": entry.count + 1,
            "taken": taken,
            "held_seconds": entry.held_seconds + held_seconds(attempt),
            "queue_seconds": entry.queue_seconds + attempt.queue_seconds,
            "gpu_seconds": entry.gpu_seconds + attempt.gpu_seconds,
            "lost_gpu_seconds": entry.lost_gpu_seconds + attempt.lost_gpu_seconds,
        }
    )
    return result


def _lost_share(attempt: Attempt, attempts: Sequence[Attempt]) -> float:
    """0 to 1."""
    if attempt.stage is not Stage.TRAIN:
        return 1.0
    kept = next(
        (
            later.from_step
            for later in attempts
            if later.stage is attempt.stage and later.number > attempt.number and later.from_step is not None
        ),
        None,
    )
    if kept is None:
        return 0.0 if attempt.exit_code == ExitCode.PREEMPTED else 1.0
    if attempt.from_step is None or attempt.to_step is None or attempt.to_step <= attempt.from_step:
        return 0.0 if kept and attempt.exit_code == ExitCode.PREEMPTED else 1.0
    done = attempt.to_step - attempt.from_step
    return min(1.0, max(0.0, (attempt.to_step - kept) / done))


def _sum(status: FineTuneRunStatus, name: str) -> int:
    return sum(int(getattr(entry, name)) for entry in (*status.attempts, *status.forgotten))


def _price(gpu_seconds: int, spec: FineTuneRunSpec, prices: Prices) -> str:
    gpu = spec.resources.train.gpu
    an_hour = prices.an_hour.get(gpu.resource_name) if gpu is not None else None
    if an_hour is None:
        return ""
    return f"{gpu_seconds * an_hour / SECONDS_AN_HOUR:.2f} {prices.currency}".rstrip()
