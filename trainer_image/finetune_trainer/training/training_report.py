"""training.html, a training's page for people: what it came to, its curves, and what it was made with.

One file, no network, no script. Must not know the loop or the store: records and facts come in, HTML goes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from jinja2 import Template

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.artifact_files import Fact
from finetune_trainer.page_template import page_template
from finetune_trainer.training.curves import Frame, Point, frame_around, short_number, smoothed, thinned
from finetune_trainer.training.loop import LARGEST_GRADIENT_NORM, LOWEST_RATE_SHARE, StepRecord

SMOOTHED_FROM = 40
"""Steps from which on the loss also gets a line that follows its middle."""
HOVERED_STEPS = 400
"""Steps whose numbers are told under the pointer, at most."""
LEARNED_BY_HEART = 1.05
"""The evaluation loss ends this much above its lowest: the model goes on to learn, but not what it is asked."""
GIB = 2**30


@dataclass(frozen=True)
class Line:
    """One line of a picture."""

    style: str
    path: str


@dataclass(frozen=True)
class Dot:
    """A place with words under the pointer."""

    x: float
    y: float
    words: str


@dataclass(frozen=True)
class Strip:
    """An upright strip of a picture with words under the pointer."""

    x: float
    width: float
    words: str


@dataclass(frozen=True)
class Picture:
    """One curve with all that is drawn on it."""

    title: str
    words: str
    """The same for who cannot see it."""
    frame: Frame
    lines: tuple[Line, ...]
    dots: tuple[Dot, ...] = ()
    strips: tuple[Strip, ...] = ()
    level: float | None = None
    """Where a dashed line lies, from the top."""
    resumes: tuple[float, ...] = ()
    """From the left."""
    checkpoints: tuple[float, ...] = ()
    """From the left."""


@dataclass(frozen=True)
class TrialRow:
    """What came of one trial of a sweep."""

    settings: str
    steps: int
    evaluation_loss: float | None
    """None when it diverged."""
    chosen: bool
    same_as: int | None = None
    """The number of an earlier trial that was the same training."""


def render_report(
    run_name: str,
    log: Sequence[StepRecord],
    facts: Mapping[str, str],
    trials: Sequence[TrialRow] = (),
) -> str:
    """The page as HTML.

    Args:
        run_name: in the headline.
        log: every step, all attempts; at least one.
        facts: what the run was made with, in the order in which it is shown.
        trials: of a sweep, in their order; the log is that of the chosen one.
    """
    seconds, tokens = sum(r.seconds for r in log), sum(r.tokens for r in log)
    return _template().render(
        run_name=run_name,
        log=log,
        facts=facts,
        trials=trials,
        warnings=warnings(log),
        learned=_learned(log),
        evaluations=_evaluations(log),
        tokens=tokens,
        time=in_words(seconds),
        tokens_per_second=tokens / seconds if seconds else 0.0,
        memory=in_bytes(max(r.memory_bytes for r in log)),
        clipped=sum(r.gradient_norm > LARGEST_GRADIENT_NORM for r in log),
        loss=_loss_picture(log, 920, 300),
        narrow_loss=_loss_picture(log, 440, 240),
        small=_small_pictures(log),
    )


def describe(training: TrainingSpec, facts: Mapping[str, Fact]) -> dict[str, str]:
    """What the run was made with, in words: its spec and the facts of its adapter."""
    lora, quantization = training.lora, training.quantization
    left_out = int(str(facts["rowsTooLong"])) + int(str(facts["rowsBrokenOff"]))
    twice = ", its scales quantized again" if quantization.double_quantization else ""
    return {
        "Base model": f"{facts['baseModel']} ({str(facts['baseModelDigest'])[:19]})",
        "Weights": f"{facts['quantization']}{twice}; computed in {facts['computeDtype']} on {facts['device']}",
        "Adapter": f"LoRA of rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}",
        "Rows": f"{facts['rows']:,}" + (f", and {left_out:,} left out" if left_out else ""),
        "Batch": f"{training.effective_batch_size:,} examples a step, {training.micro_batch_size:,} at a time, "
        f"up to {training.sequence_length:,} tokens each",
        "Learning rate": f"up to {short_number(training.learning_rate)} over the first "
        f"{training.warmup_ratio:.0%} of the steps, then down to {LOWEST_RATE_SHARE:.0%} of it",
        "Seed": f"{training.seed}",
        "Dataset": str(facts["datasetDigest"]),
        "Run key": str(facts["runKey"]),
    }


def warnings(log: Sequence[StepRecord]) -> list[str]:
    """What a person should know before using the model."""
    found = []
    tenth = max(1, len(log) // 10)
    first, last = fmean(r.loss for r in log[:tenth]), fmean(r.loss for r in log[-tenth:])
    if len(log) > 1 and last >= first:
        found.append(
            f"The loss did not fall: {first:.3f} at first, {last:.3f} at the end. "
            "Raise learningRate or the number of steps, or look at the rows in dataset.html."
        )
    measured = _evaluations(log)
    if measured:
        step, lowest = min(measured, key=lambda point: point[1])
        if measured[-1][1] > LEARNED_BY_HEART * lowest:
            found.append(
                f"The evaluation loss was lowest after step {int(step):,} ({lowest:.3f}) and rose to "
                f"{measured[-1][1]:.3f}: from there on the model learned its rows by heart. Train fewer steps."
            )
    return found


def in_words(seconds: float) -> str:
    """A time as a person says it: 48 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def in_bytes(number: int) -> str:
    """GiB from one on, below MiB."""
    return f"{number / GIB:.2f} GiB" if number >= GIB else f"{number / 2**20:.0f} MiB"


def _evaluations(log: Sequence[StepRecord]) -> list[Point]:
    return [(r.step, r.evaluation_loss) for r in log if r.evaluation_loss is not None]


def _learned(log: Sequence[StepRecord]) -> str:
    """The result in one sentence."""
    measured = _evaluations(log)
    if len(measured) > 1:
        return (
            f"On questions that were never taught the loss went from {measured[0][1]:.3f} to {measured[-1][1]:.3f} "
            f"in {len(log):,} steps."
        )
    return f"The training loss went from {log[0].loss:.3f} to {log[-1].loss:.3f} in {len(log):,} steps."


def _loss_picture(log: Sequence[StepRecord], width: int, height: int) -> Picture:
    points, measured = _points(log, lambda r: r.loss), _evaluations(log)
    middle = smoothed(points, len(points) // 30) if len(points) >= SMOOTHED_FROM else []
    frame = frame_around(width, height, points, measured, from_zero=True)
    lines = [Line("faint" if middle else "one", frame.path(thinned(points)))]
    if middle:
        lines.append(Line("one", frame.path(thinned(middle))))
    if len(measured) > 1:
        lines.append(Line("two", frame.path(measured)))
    return Picture(
        title="Loss",
        words=f"Loss by step, {_from_to(points)}",
        frame=frame,
        lines=tuple(lines),
        dots=tuple(
            Dot(frame.x(step), frame.y(value), f"step {int(step):,}: evaluation loss {value:.4f}")
            for step, value in measured
        ),
        strips=_strips(log, frame) if len(log) <= HOVERED_STEPS else (),
        resumes=tuple(frame.x(r.step) for r in log if r.resumed),
        checkpoints=tuple(frame.x(r.step) for r in log if r.checkpoint),
    )


def _small_pictures(log: Sequence[StepRecord]) -> list[Picture]:
    peak = max(r.memory_bytes for r in log)
    unit, name = (GIB, "GiB") if peak >= GIB else (2**20, "MiB")
    pictures = [
        _small_picture("Learning rate", log, lambda r: r.learning_rate),
        _small_picture("Gradient norm", log, lambda r: r.gradient_norm, level=LARGEST_GRADIENT_NORM),
        _small_picture("Tokens per second", log, lambda r: r.tokens / r.seconds),
    ]
    if peak:
        pictures.append(_small_picture(f"Memory, {name}", log, lambda r: r.memory_bytes / unit))
    return pictures


def _small_picture(
    title: str, log: Sequence[StepRecord], value: Callable[[StepRecord], float], level: float | None = None
) -> Picture:
    points = thinned(_points(log, value))
    frame = frame_around(440, 190, points, from_zero=True)
    in_sight = level is not None and frame.low <= level <= frame.high
    return Picture(
        title=title,
        words=f"{title} by step, {_from_to(points)}",
        frame=frame,
        lines=(Line("one", frame.path(points)),),
        level=frame.y(level) if level is not None and in_sight else None,
        resumes=tuple(frame.x(r.step) for r in log if r.resumed),
    )


def _points(log: Sequence[StepRecord], value: Callable[[StepRecord], float]) -> list[Point]:
    """What is no finite number is left out."""
    return [(r.step, number) for r in log if math.isfinite(number := value(r))]


def _from_to(points: Sequence[Point]) -> str:
    if not points:
        return "nothing measured"
    return f"from {short_number(points[0][1])} to {short_number(points[-1][1])}"


def _strips(log: Sequence[StepRecord], frame: Frame) -> tuple[Strip, ...]:
    width = (frame.width - frame.left - frame.right) / max(1, len(log) - 1)
    return tuple(
        Strip(
            round(frame.x(r.step) - width / 2, 1),
            round(width, 1),
            f"step {r.step:,}: loss {r.loss:.4f}, learning rate {short_number(r.learning_rate)}, "
            f"gradient norm {r.gradient_norm:.3f}, {r.tokens / r.seconds:,.0f} tokens/s"
            + (", checkpoint" if r.checkpoint else "")
            + (", gone on from a checkpoint" if r.resumed else ""),
        )
        for r in log
    )


@cache
def _template() -> Template:
    return page_template(
        "finetune_trainer.training", "training_report.html.j2", {"thousands": lambda number: f"{number:,.0f}"}
    )
