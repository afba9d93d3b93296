"""A FineTuneRun's YAML with settings from the command line: `--set training.maxSteps=10`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from finetune_contract.run_document import InvalidRunDocument, RunMetadata, parse_run, read_document
from finetune_contract.run_spec import FineTuneRunSpec


class InvalidSetting(ValueError):
    """A --set that does not fit the run."""


def load_run(file: Path, settings: list[str]) -> tuple[RunMetadata, FineTuneRunSpec]:
    """The run in a file, with settings.

    Raises:
        InvalidRunDocument: the file cannot be read, a setting does not fit, or the run is not valid.
    """
    try:
        return parse_run(with_settings(file.read_text(encoding="utf-8"), settings))
    except OSError as error:
        raise InvalidRunDocument([f"{file}: cannot be read ({error.strerror})"]) from error
    except UnicodeDecodeError as error:
        raise InvalidRunDocument([f"{file}: is no text in UTF-8; give the YAML of a FineTuneRun"]) from error
    except InvalidSetting as error:
        raise InvalidRunDocument([str(error)]) from error


def with_settings(document: str, settings: list[str]) -> dict[str, Any]:
    """The run with `path=value` settings below `spec`; list items are named by number or by their `name`.

    Raises:
        InvalidSetting: no `=`, a path that leads nowhere, or a value that is no YAML.
        InvalidRunDocument: the document is no YAML object.
    """
    loaded: dict[str, Any] = dict(read_document(document))
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals:
            raise InvalidSetting(f"--set {setting}: has no `=`; write --set training.maxSteps=10")
        steps = path.removeprefix("spec.").split(".")
        place: object = loaded.setdefault("spec", {})
        for step in steps[:-1]:
            place = _step_into(place, step, path)
        if not isinstance(place, dict):
            kind = "a list; name the item first" if isinstance(place, list) else "a plain value"
            raise InvalidSetting(f"--set {path}: {steps[-1]!r} leads nowhere, for its parent is {kind}")
        try:
            place[steps[-1]] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InvalidSetting(f"--set {path}: the value is no YAML; put it in quotes") from error
    return loaded


def _step_into(place: object, step: str, path: str) -> object:
    if isinstance(place, dict):
        return place.setdefault(step, {})
    if isinstance(place, list):
        for index, item in enumerate(place):
            if step == str(index) or (isinstance(item, dict) and item.get("name") == step):
                return item
        names = [
            str(item.get("name", i)) if isinstance(item, dict) else str(i) for i, item in enumerate(place)
        ]
        raise InvalidSetting(f"--set {path}: there is no item {step!r}; choose one of {', '.join(names)}")
    raise InvalidSetting(f"--set {path}: {step!r} leads nowhere, for its parent is a plain value")
