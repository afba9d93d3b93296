"""The trials of a sweep in numbers: the steps of each, which are the same, and which of them a pod trains. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_contract.run_spec import TrainingSpec
from finetune_contract.stage_protocol import ENV_COMPLETION_INDEX
from finetune_contract.sweep_trials import pods_side_by_side, settings_in_words, trials_of
from finetune_trainer.errors import InvalidRun
from finetune_trainer.training.encoding import EncodedExample
from finetune_trainer.training.packing import TrainingPlan


@dataclass(frozen=True)
class Trial:
    """One of the trainings, and where it stands among the others."""

    number: int
    """1 for the first."""
    count: int
    training: TrainingSpec
    settings: str
    """In words."""
    steps: int
    """Planned."""
    same_as: int | None = None
    """The number of an earlier trial that takes the same steps; this one is then passed over."""


@dataclass(frozen=True)
class PodShare:
    """Which of the pods that share the trials this is."""

    number: int = 0
    """0 for the first."""
    count: int = 1

    @property
    def is_whole(self) -> bool:
        """It trains all of them."""
        return self.count == 1

    def of(self, trials: Sequence[Trial]) -> list[Trial]:
        """Every `count`-th of those that are trained."""
        return trained(trials)[self.number :: self.count]


def share_of(training: TrainingSpec, environment: Mapping[str, str], *, on_cluster: bool) -> PodShare:
    """The share of the pod with this environment; the whole outside of a Job for several."""
    index, pods = environment.get(ENV_COMPLETION_INDEX), pods_side_by_side(training)
    if index is None or pods == 1 or not on_cluster:
        return PodShare()
    return PodShare(int(index), pods)


def plan_trials(training: TrainingSpec, rows: Sequence[EncodedExample]) -> list[Trial]:
    """The trials in their order.

    Of the epochs a training sees nothing but the number of steps that they come to, with `maxSteps` and rounding.
    """
    trainings = trials_of(training)
    steps = [TrainingPlan.of(rows, one).total_steps for one in trainings]
    effects = [
        one.model_copy(update={"epochs": 1.0, "max_steps": count})
        for one, count in zip(trainings, steps, strict=True)
    ]
    firsts = [effects.index(effect) for effect in effects]
    return [
        Trial(
            number + 1,
            len(trainings),
            one,
            settings_in_words(training, one),
            steps[number],
            same_as=None if firsts[number] == number else firsts[number] + 1,
        )
        for number, one in enumerate(trainings)
    ]


def trained(trials: Sequence[Trial]) -> list[Trial]:
    """Those that are the same as no earlier one."""
    return [trial for trial in trials if trial.same_as is None]


def steps_of(trials: Sequence[Trial]) -> int:
    """Planned for all of them that are trained."""
    return sum(trial.steps for trial in trained(trials))


def refuse_all_the_same(trials: Sequence[Trial]) -> None:
    """Raises InvalidRun when there is nothing to compare."""
    if all(trial.same_as is not None for trial in trials[1:]):
        raise InvalidRun(
            f"spec.training.sweep.epochs: all {len(trials)} trials are the same training of "
            f"{trials[0].steps} steps; raise or leave out spec.training.maxSteps, or choose values further apart"
        )
