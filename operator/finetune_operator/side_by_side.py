"""A Job whose pods each do a share by themselves: which of them speaks for it, and how far they are together. Pure.

The pods of a sweep need neither each other nor a place at the same time: one that finds no GPU takes its turn when
another has ended.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.stage_protocol import CONTAINER_NAME, ProgressLine, Stage, StageReport, StepShare
from finetune_contract.sweep_trials import pods_side_by_side
from finetune_operator.observed import JobFacts, PodFacts
from finetune_operator.stages import STAGE_BY_NAME

Tail = tuple[str, ...]


def shares(spec: FineTuneRunSpec, stage: Stage) -> int:
    """How many pods share the stage, each by itself; 1 when it is one alone, or when they need each other."""
    return pods_side_by_side(spec.training) if STAGE_BY_NAME[stage].spreads else 1


def ended_well(job: JobFacts) -> int:
    """How many pods have done their share."""
    return sum(_exit_code(pod) == 0 for pod in job.pods)


def speaker(job: JobFacts) -> PodFacts | None:
    """The pod that speaks for a Job that is under way: one that works, else one that may soon."""
    return max(job.pods, key=_standing, default=None)


def publisher(job: JobFacts) -> PodFacts | None:
    """The pod that found all shares done and tells what came of them."""
    told = (pod for pod in job.pods if (report := _report(pod)) is not None and report.training is not None)
    return next(told, None)


def log_of_all(pods: Sequence[PodFacts], tails: Sequence[Tail | None], count: int) -> Tail | None:
    """The words of the pod that tells most, and after them one line with the progress of all.

    Args:
        pods: the one that tells most is last.
        tails: the end of each one's log, None where there is none.
        count: how many share the stage.
    """
    heard = [(pod, tail) for pod, tail in zip(pods, tails, strict=True) if tail is not None]
    if not heard:
        return None
    lines: dict[int, tuple[PodFacts, ProgressLine]] = {}
    for pod, tail in sorted(heard, key=lambda one: one[0].created_at):
        if (line := _last_share(tail)) is not None:
            lines[pod.index] = (pod, line)
    words = heard[-1][1]
    if not lines:
        return words
    whole = _together([lines[index] for index in sorted(lines)], count)
    return (*(text for text in words if ProgressLine.parse(text) is None), whole.to_line())


def _together(lines: Sequence[tuple[PodFacts, ProgressLine]], count: int) -> ProgressLine:
    """One line of a pod each."""
    every = [line for _, line in lines]
    shares_of_all = [line.share for line in every if line.share is not None]
    at_work = [line for pod, line in lines if _runs(pod)]
    step, total = sum(line.step for line in every), max(share.steps_of_all for share in shares_of_all)
    paces = [line.tokens_per_second for line in at_work if line.tokens_per_second is not None]
    return ProgressLine(
        stage=every[0].stage,
        step=step,
        total_steps=total,
        loss=next((line.loss for line in at_work if line.loss is not None), None),
        tokens_per_second=sum(paces) if paces else None,
        eta_seconds=_eta_seconds(at_work, total - step),
        message="; ".join([f"{len(at_work)} of {count} pods train", *(line.message for line in at_work)]),
        share=StepShare(from_step=sum(share.from_step for share in shares_of_all), steps_of_all=total),
        time=max(line.time for line in every),
    )


def _eta_seconds(at_work: Sequence[ProgressLine], steps_left: int) -> float | None:
    """At the pace of all that work now; but no pod ends before its own share is done."""
    paced = [line for line in at_work if line.eta_seconds and line.total_steps > line.step]
    if not paced:
        return None
    steps_a_second = sum((line.total_steps - line.step) / (line.eta_seconds or 1.0) for line in paced)
    return max(steps_left / steps_a_second, *(line.eta_seconds or 0.0 for line in paced))


def _last_share(tail: Tail) -> ProgressLine | None:
    lines = (ProgressLine.parse(text) for text in reversed(tail))
    return next((line for line in lines if line is not None and line.share is not None), None)


def _standing(pod: PodFacts) -> int:
    """Whom to ask: a pod that works, one whose node is silent, one that has a node, one that waits, one that ended."""
    if _runs(pod) and not pod.disruption:
        return 3 if pod.silent(CONTAINER_NAME) else 4
    if _exit_code(pod) is not None and not pod.disruption:
        return 0
    return 2 if pod.node and not pod.disruption else 1


def _runs(pod: PodFacts) -> bool:
    container = pod.container(CONTAINER_NAME)
    return container is not None and container.running


def _exit_code(pod: PodFacts) -> int | None:
    container = pod.container(CONTAINER_NAME)
    return container.terminated.exit_code if container and container.terminated else None


def _report(pod: PodFacts) -> StageReport | None:
    container = pod.container(CONTAINER_NAME)
    return StageReport.parse(container.terminated.message) if container and container.terminated else None
