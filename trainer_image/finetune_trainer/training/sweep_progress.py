"""How far a sweep is: steps of all trials of this pod together, and what they are of the whole."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_contract.stage_protocol import StepShare
from finetune_trainer.run_log import Progress
from finetune_trainer.training.sweep_plan import PodShare, Trial, steps_of


class SweepProgress:
    """Is told the steps of one trial after the other."""

    def __init__(self, stage: Progress, trials: Sequence[Trial], share: PodShare) -> None:
        """For the pod with this share of the trials."""
        self._stage, self._share = stage, share
        self._mine, self._steps_of_all = share.of(trials), steps_of(trials)
        self._before, self._words, self._settings = 0, "", ""
        self.from_step = 0
        """Steps of trials, or of parts of them, that were done before."""

    def begin(self, trial: Trial) -> None:
        """What is told from now on is of this trial."""
        place = self._mine.index(trial)
        self._before = steps_of(self._mine[:place])
        self._words, self._settings = f"trial {trial.number} of {trial.count}: ", trial.settings

    def goes_on_from(self, step: int) -> None:
        """The trial was trained so far before."""
        self.from_step += step

    def end(self) -> None:
        """Every trial of this pod is finished; told where other pods may still train theirs."""
        if not self._share.is_whole:
            self._before, self._words = steps_of(self._mine), ""
            self(message="the trials of this pod are finished")

    def __call__(
        self,
        step: int = 0,
        total_steps: int = 0,
        *,
        message: str = "",
        loss: float | None = None,
        tokens_per_second: float | None = None,
        evaluation_loss: float | None = None,
        memory_bytes: int | None = None,
        share: StepShare | None = None,
    ) -> None:
        doing = self._settings if loss is not None else message
        of_the_whole = StepShare(from_step=self.from_step, steps_of_all=self._steps_of_all)
        self._stage(
            self._before + step,
            steps_of(self._mine),
            message=f"{self._words}{doing}",
            loss=loss,
            tokens_per_second=tokens_per_second,
            evaluation_loss=evaluation_loss,
            memory_bytes=memory_bytes,
            share=None if self._share.is_whole else of_the_whole,
        )
