"""Other places that follow a training, each through its own package. Off, unless its environment variable is set.

A place that cannot be reached, or is set up wrongly, is named in the log and left alone: it never ends a training. Its
package is in no image of ours; whoever wants it installs it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Protocol

from finetune_trainer.stage_context import StageContext

logger = logging.getLogger(__name__)

TRACKERS: dict[str, tuple[str, str]] = {
    "MLFLOW_TRACKING_URI": ("finetune_trainer.training.trackers.mlflow_runs", "mlflow-skinny"),
    "WANDB_API_KEY": ("finetune_trainer.training.trackers.weights_and_biases", "wandb"),
}
"""By the variable that turns it on: our module with `open_tracker`, and the package that it needs."""
_LONGEST_WORDS = 300


class Tracker(Protocol):
    """One place; both methods may raise whatever its package raises."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Tell the numbers of a step, without waiting for an answer."""

    def close(self, finished: bool) -> None:
        """Hand over what is left, and say whether the training is finished."""


class Trackers:
    """All places that are turned on; one that is lost is named once."""

    def __init__(self, places: Mapping[str, Tracker]) -> None:
        self._places = dict(places)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of a step, to every place."""
        for name, place in list(self._places.items()):
            try:
                place.add(step, values)
            except Exception as error:  # noqa: BLE001 - no word of a package ends a training
                self._lose(name, error)

    def close(self, finished: bool) -> None:
        """The last word to every place."""
        for name, place in list(self._places.items()):
            try:
                place.close(finished)
            except Exception as error:  # noqa: BLE001 - no word of a package ends a training
                self._lose(name, error)

    def _lose(self, name: str, error: Exception) -> None:
        logger.warning("%s: no longer told about the training: %s", name, _words(error))
        del self._places[name]


def name_and_key(context: StageContext) -> tuple[str, str]:
    """Name and short key under which a place knows the training; a sweep's trials have their own."""
    key, _, trial = context.run_key.partition("/")
    ending = f"-{trial}" if trial else ""
    return f"{context.run_name}{ending}", f"{key[:32]}{ending}"


def open_trackers(context: StageContext) -> Trackers:
    """The places whose variable is set.

    A missing package, a wrong setting or a silent server is named, and training goes on: the packages have errors of
    their own for some of it, and let the errors of what they use through for the rest.
    """
    places: dict[str, Tracker] = {}
    for variable, (module, package) in TRACKERS.items():
        if not context.environment.get(variable):
            continue
        try:
            tracker_module = import_module(module)
        except ImportError:
            logger.warning(
                "%s is set and its package is missing, so nobody is told; pip install %s", variable, package
            )
            continue
        try:
            places[variable] = tracker_module.open_tracker(context)
        except Exception as error:  # noqa: BLE001 - as above
            logger.warning("%s: is not told about the training: %s", variable, _words(error))
    return Trackers(places)


def _words(error: Exception) -> str:
    """In one line; a name and password in an address are left out."""
    text = re.sub(r"//[^/@\s]*@", "//", " ".join(str(error).split()))
    return f"{text[:_LONGEST_WORDS]} ({type(error).__name__})"
