"""A FineTuneRun as a user writes it: YAML in, typed spec out, or lines that say where, what and what to do.

The API server checks the same by the CRD; this is for a run without a cluster, and for the words of both.
Must not know who asks. No found value is repeated where it could be a secret.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finetune_contract.crd_schema import (
    API_VERSION,
    KIND,
    MAX_NAME_LENGTH,
    Schema,
    range_in_words,
    structural_schema,
)
from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.text_forms import FORM

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")
_LONGEST_SHOWN = 80
_KNOWN_TOP = ("apiVersion", "kind", "metadata", "spec", "status")


@dataclass(frozen=True)
class RunMetadata:
    """The part of metadata that a run without a cluster has a use for."""

    name: str
    namespace: str = ""


class InvalidRunDocument(ValueError):
    """The user's YAML is not a FineTuneRun. Trying again with the same text ends the same way."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


def parse_run(document: str | Mapping[str, object]) -> tuple[RunMetadata, FineTuneRunSpec]:
    """The run in a YAML text, or in an object that was read from one.

    Raises:
        InvalidRunDocument: with one line a fault: path, fact, remedy.
    """
    run = read_document(document) if isinstance(document, str) else document
    metadata, faults = _check_frame(run)
    spec: FineTuneRunSpec | None = None
    if isinstance(run.get("spec"), Mapping):
        try:
            spec = parse_spec(cast("Mapping[str, object]", run["spec"]))
        except InvalidRunDocument as error:
            faults += error.lines
    elif "spec" in run:
        faults.append(
            f"spec: found {_kind_of(run['spec'])}; write fields: {', '.join(_spec_schema()['properties'])}"
        )
    if faults or spec is None:
        raise InvalidRunDocument(faults)
    return metadata, spec


def parse_spec(spec: Mapping[str, object]) -> FineTuneRunSpec:
    """A spec that was read from YAML or JSON, with the API server's strictness: no text for a number.

    Raises:
        InvalidRunDocument: with one line a fault: path, fact, remedy.
    """
    try:
        return FineTuneRunSpec.model_validate_json(json.dumps(spec, default=str), strict=True)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise InvalidRunDocument(list(dict.fromkeys(_in_words(fault) for fault in faults))) from None


def read_document(text: str) -> Mapping[str, object]:
    """The one object of a YAML text, unchecked.

    Raises:
        InvalidRunDocument: it is no YAML, holds no object, or several.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        raise InvalidRunDocument(
            [f"{place}: not YAML: {error.problem}; mend the indentation or quote the value"]
        ) from None
    except yaml.YAMLError:
        raise InvalidRunDocument(
            ["the file: not YAML; it holds characters that YAML does not allow"]
        ) from None
    if len(documents) != 1:
        raise InvalidRunDocument([f"the file: holds {len(documents)} documents; write one {KIND}"])
    if not isinstance(documents[0], Mapping):
        found = _kind_of(documents[0])
        raise InvalidRunDocument(
            [f"the file: holds {found}; write apiVersion, kind, metadata and spec of a {KIND}"]
        )
    return documents[0]


def _check_frame(run: Mapping[str, object]) -> tuple[RunMetadata, list[str]]:
    """Everything around the spec."""
    faults: list[str] = []
    for field, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if run.get(field) != wanted:
            faults.append(f"{field}: {_shown(field, run.get(field))}; write {wanted}")
    faults += [_unknown(str(field), str(field), _KNOWN_TOP) for field in run if field not in _KNOWN_TOP]
    if "spec" not in run:
        faults.append(f"spec: is missing; write at least {', '.join(_spec_schema()['required'])}")
    metadata = run.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    name, namespace = metadata.get("name"), metadata.get("namespace", "")
    if not isinstance(name, str) or not name:
        faults.append("metadata.name: is missing; name the run")
    elif not _NAME.fullmatch(name):
        faults.append(
            f"metadata.name: {_shown('', name)} is not a name; use lower case letters, digits and '-'"
        )
    elif len(name) > MAX_NAME_LENGTH:
        faults.append(f"metadata.name: has {len(name)} characters; choose at most {MAX_NAME_LENGTH}")
    return RunMetadata(str(name), namespace if isinstance(namespace, str) else ""), faults


def _in_words(fault: ErrorDetails) -> str:
    """One of pydantic's errors as `path: fact; remedy`."""
    path, schema = _place(fault["loc"])
    context = fault.get("ctx", {})
    found = fault.get("input")
    shown = _shown(path, found)
    match fault["type"]:
        case "cross_field":
            return f"{_join(path, context['field'])}: {context['fact']}; {context['remedy']}"
        case "extra_forbidden":
            parent = _place(fault["loc"][:-1])[1]
            return _unknown(path, str(fault["loc"][-1]), list(parent.get("properties", {})))
        case "missing":
            return f"{path}: is missing; {_wanted(schema)}"
        case "less_than" | "less_than_equal":
            return f"{path}: {shown} is over {schema.get('maximum')}; {_wanted(schema)}"
        case "greater_than" | "greater_than_equal":
            below = "is not over" if schema.get("exclusiveMinimum") else "is under"
            return f"{path}: {shown} {below} {schema.get('minimum')}; {_wanted(schema)}"
        case "enum" if fault["loc"][-1] == "[key]":
            known = re.findall(r"'([^']+)'", str(context["expected"]))
            return f"{_place(fault['loc'][:-2])[0]}: {shown} is not known; choose {', '.join(known)}"
        case "enum":
            return (
                f"{path}: {shown} is not known; {_wanted(schema)}{_suggestion(found, schema.get('enum', ()))}"
            )
        case "string_pattern_mismatch":
            return f"{path}: {shown} does not fit; {_wanted(schema)}"
        case "string_too_long" | "string_too_short" | "too_long" | "too_short":
            size = _size(schema) if FORM in schema else ""
            return f"{path}: has {_length(found)}; {_wanted(schema)}{size}"
        case _:
            kind = "" if isinstance(found, bool) else f" {_kind_of(found)}"
            return f"{path}: found{kind}{_brief(path, found)}; {_wanted(schema)}"


def _place(location: Sequence[str | int]) -> tuple[str, Schema]:
    """pydantic's location as the path that a user knows, and the schema that stands there."""
    path, schema = "spec", _spec_schema()
    for step in location:
        if isinstance(step, int):
            path, schema = f"{path}[{step}]", schema.get("items", {})
        elif step in schema.get("properties", {}):
            path, schema = f"{path}.{step}", schema["properties"][step]
        elif isinstance(schema.get("additionalProperties"), dict):
            path, schema = f"{path}.{step}", schema["additionalProperties"]
        else:
            path, schema = f"{path}.{step}", {}
    return path, schema


def _wanted(schema: Schema) -> str:
    """What may stand there, as a remedy."""
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    if "enum" in schema:
        return f"choose {', '.join(schema['enum'])}"
    if lowest is not None and highest is not None:
        return range_in_words(schema)
    said = str(schema.get("description", "")).rstrip(".")
    match schema.get("type"):
        case "object":
            if "required" in schema:
                return f"write at least its fields {', '.join(schema['required'])}"
            fields = ", ".join(schema.get("properties", {}))
            return f"write its fields ({fields})" if fields else "write fields with text values"
        case "array":
            return f"write a list of {schema.get('minItems', 0)} to {schema['maxItems']} entries"
        case "boolean":
            return "choose true or false"
        case "string" if FORM in schema:
            return str(schema[FORM])
        case "string":
            return f"write text{_size(schema)}" + (f" ({said})" if said else "")
        case _:
            return said or "see `kubectl explain finetunerun.spec`"


def _size(schema: Schema) -> str:
    least = schema.get("minLength", 0)
    return f", of {least} to {schema['maxLength']} characters" if "maxLength" in schema else ""


def _unknown(path: str, field: str, known: Sequence[str]) -> str:
    near = _suggestion(field, known)
    return (
        f"{path}: unknown field{near}" if near else f"{path}: unknown field; known here: {', '.join(known)}"
    )


def _suggestion(found: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(found), known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(path: str, found: object) -> str:
    """A found value in a message: short, and nothing where a secret may have been pasted."""
    if found is None:
        return "nothing"
    if "SecretRef" in path:
        return "what was found"
    if isinstance(found, str):
        text = _USER_INFO.sub("***@", found)
        return json.dumps(
            text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "...", ensure_ascii=False
        )
    return json.dumps(found) if isinstance(found, bool | int | float) else _kind_of(found)


def _brief(path: str, found: object) -> str:
    return (
        f" {_shown(path, found)}"
        if isinstance(found, str | bool | int | float) and "SecretRef" not in path
        else ""
    )


def _kind_of(found: object) -> str:
    """The kind of a value in a user's words."""
    match found:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case Mapping():
            return "fields"
        case _:
            return "a list"


def _length(found: object) -> str:
    if isinstance(found, str):
        return f"{len(found)} characters"
    return f"{len(found)} entries" if isinstance(found, list | Mapping) else "the wrong length"


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if field else path


@cache
def _spec_schema() -> dict[str, Any]:
    return structural_schema(FineTuneRunSpec, defaults=False)
