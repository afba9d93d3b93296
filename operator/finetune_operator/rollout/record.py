"""The record of a target's model: a ConfigMap that outlives runs and the Deployment. Pure.

For people and for whatever writes Git: MODEL_URI, MODEL_MANIFEST_SHA256 and MODEL_ID of it are enough to bring a model
back. It also lists the models before, for the sweep of the store, and those that must not come back by themselves: runs
may be deleted. Holds no time, so that writing it twice changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from finetune_contract.run_status import EvaluationStatus, ModelPointer
from finetune_operator.actions import WriteRecord
from finetune_operator.api_group import FIELD_MANAGER
from finetune_operator.observed import NO_MODEL, Quarantined, RecordedModel, Run
from finetune_operator.rollout.patch import MODEL_ID, MODEL_MANIFEST_SHA256, MODEL_URI

LIVE, PUBLISHED = "Live", "Published"
HISTORY = "HISTORY"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MOST_MODELS = 20
"""On the record; each takes about 400 bytes of the mebibyte that a ConfigMap may hold."""
MAX_NAME_LENGTH = 253
_SUFFIX = "-model"
_QUARANTINED = "QUARANTINED."
_VALUES = (MODEL_URI, MODEL_MANIFEST_SHA256, MODEL_ID)
MOST_QUARANTINED = 100
"""On the record; each takes about 500 bytes."""


def record_name(deployment: str) -> str:
    """Name of the ConfigMap."""
    return f"{deployment[: MAX_NAME_LENGTH - len(_SUFFIX)].rstrip('-.')}{_SUFFIX}"


def record(
    run: Run,
    deployment: str,
    current: ModelPointer,
    previous: ModelPointer | None,
    state: str,
    history: tuple[RecordedModel, ...] = (),
    quarantine: tuple[Quarantined, ...] = (),
) -> WriteRecord:
    """What a target serves (Live), or should serve when somebody takes it there (Published).

    No ownerReference: it must be there when the run is deleted.

    Args:
        history: what is on the record, newest first.
        quarantine: what else is on it; stays there, but for the model that is live now.
    """
    before = previous or NO_MODEL
    known = {entry.model.model_id: entry for entry in history}
    newest_first = (
        RecordedModel(current, run.name, measured(run.status.evaluation)),
        known.get(before.model_id, RecordedModel(before)),
        *history,
    )
    models: dict[str, RecordedModel] = {}
    for entry in newest_first:
        if entry.model.model_id:
            models.setdefault(entry.model.model_id, entry)
    listed = list(models.values())[:MOST_MODELS]
    return _written(
        run,
        deployment,
        {
            MODEL_URI: current.uri,
            MODEL_MANIFEST_SHA256: current.manifest_sha256,
            MODEL_ID: current.model_id,
            f"PREVIOUS_{MODEL_URI}": before.uri,
            f"PREVIOUS_{MODEL_MANIFEST_SHA256}": before.manifest_sha256,
            f"PREVIOUS_{MODEL_ID}": before.model_id,
            "state": state,
            "deployment": deployment,
            "run": run.name,
            HISTORY: json.dumps([_to_wire(entry) for entry in listed], indent=1),
            **_kept_back(entry for entry in quarantine if entry.model_id != current.model_id),
        },
    )


def record_with_quarantine(
    run: Run, deployment: str, recorded: Mapping[str, str], entry: Quarantined
) -> WriteRecord:
    """The record as it is, with a model more that is kept from the target; a new one where there is none."""
    ours = (*_VALUES, *(f"PREVIOUS_{name}" for name in _VALUES), "state", "deployment", "run", HISTORY)
    kept = {name: value for name, value in recorded.items() if name in ours}
    others = (one for one in read_quarantine({"data": recorded}) if one.model_id != entry.model_id)
    listed = (entry, *others)[:MOST_QUARANTINED]
    return _written(run, deployment, {HISTORY: "[]", **kept, "deployment": deployment, **_kept_back(listed)})


def recorded_model(recorded: Mapping[str, str]) -> ModelPointer:
    """The model that a record names as live, or published; an empty one where it names none."""
    return ModelPointer(
        uri=recorded.get(MODEL_URI, ""),
        manifest_sha256=recorded.get(MODEL_MANIFEST_SHA256, ""),
        model_id=recorded.get(MODEL_ID, ""),
    )


def quarantine_key(model_id: str) -> str:
    """The entry of the record that keeps a model from the target."""
    return f"{_QUARANTINED}{model_id.removeprefix('sha256:')}"


def read_quarantine(body: Mapping[str, Any]) -> tuple[Quarantined, ...]:
    """Models that a record keeps from its target; whatever an entry says, its name counts."""
    found: list[Quarantined] = []
    for key, value in sorted((body.get("data") or {}).items()):
        if not key.startswith(_QUARANTINED):
            continue
        try:
            said = json.loads(value)
        except ValueError:
            said = {"message": value}
        told = said if isinstance(said, dict) else {}
        words = (str(told.get(name) or "") for name in ("run", "reason", "message"))
        found.append(Quarantined(f"sha256:{key.removeprefix(_QUARANTINED)}", *words))
    return tuple(found)


def _kept_back(entries: Iterable[Quarantined]) -> dict[str, str]:
    return {
        quarantine_key(entry.model_id): json.dumps(
            {"run": entry.run, "reason": entry.reason, "message": entry.message}, ensure_ascii=False
        )
        for entry in entries
    }


def _written(run: Run, deployment: str, data: dict[str, str]) -> WriteRecord:
    return WriteRecord(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": record_name(deployment),
                "namespace": run.namespace,
                "labels": {LABEL_MANAGED_BY: FIELD_MANAGER},
            },
            "data": data,
        }
    )


def measured(evaluation: EvaluationStatus | None) -> tuple[tuple[str, float], ...]:
    """Metrics of the new model, by name."""
    found = ((metric.name, _number(metric.new)) for metric in (evaluation.metrics if evaluation else ()))
    return tuple((name, value) for name, value in found if value is not None)


def is_record(body: Mapping[str, Any]) -> bool:
    """Whether an object of the cluster is such a ConfigMap."""
    labels = (body.get("metadata") or {}).get("labels") or {}
    ours = labels.get(LABEL_MANAGED_BY) == FIELD_MANAGER
    return body.get("kind") == "ConfigMap" and ours and HISTORY in (body.get("data") or {})


def read_history(body: Mapping[str, Any]) -> tuple[RecordedModel, ...]:
    """The models on a record, newest first; none where it says nothing that can be read."""
    data = body.get("data") or {}
    try:
        entries = json.loads(data.get(HISTORY) or "[]")
        return tuple(_from_wire(entry) for entry in entries)
    except (ValueError, TypeError, AttributeError):
        return ()


def _to_wire(entry: RecordedModel) -> dict[str, object]:
    pointer = entry.model
    return {
        MODEL_ID: pointer.model_id,
        MODEL_URI: pointer.uri,
        MODEL_MANIFEST_SHA256: pointer.manifest_sha256,
        "run": entry.run,
        "metrics": dict(entry.metrics),
    }


def _from_wire(entry: Mapping[str, Any]) -> RecordedModel:
    def said(name: str) -> str:
        return str(entry.get(name) or "")

    pointer = ModelPointer(
        uri=said(MODEL_URI), manifest_sha256=said(MODEL_MANIFEST_SHA256), model_id=said(MODEL_ID)
    )
    metrics = ((str(name), _number(value)) for name, value in (entry.get("metrics") or {}).items())
    return RecordedModel(
        pointer, said("run"), tuple((name, value) for name, value in metrics if value is not None)
    )


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
