"""Which models the cluster still needs, told from its runs, Deployments and ReplicaSets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from finetune_contract.protected_models import ProtectedModels
from finetune_contract.run_spec import RolloutMode
from finetune_contract.run_status import Phase, RolloutPhase
from finetune_operator.outlook import OVER
from finetune_operator.rollout.record import read_history
from finetune_operator.rollout.target_shape import MODEL_VARIABLES

Json = Mapping[str, Any]
_PREFIX = "sha256:"


def protected_models(
    runs: Iterable[Json], templates: Iterable[Json], records: Iterable[Json] = ()
) -> ProtectedModels:
    """The list for the sweep of a store.

    Args:
        runs: every FineTuneRun of the namespaces that share the store, as the API server gives them.
        templates: every Deployment and ReplicaSet there, of which old ones count too: an undo goes back to them.
        records: ConfigMaps in which the operator keeps what was live in a target, also of runs that were deleted.
    """
    history: dict[str, list[str]] = {}
    for body in records:
        place = f"{body['metadata']['namespace']}/deployment/{body['data']['deployment']}"
        history[place] = [
            entry.model.manifest_sha256
            for entry in read_history(body)
            if _is_digest(entry.model.manifest_sha256)
        ]
    candidates: list[str] = []
    active: list[str] = []
    for body in sorted(runs, key=_live_since, reverse=True):
        status = body.get("status") or {}
        rollout = status.get("rollout") or {}
        digest = str((status.get("artifact") or {}).get("manifestSha256") or "")
        ended = status.get("phase") in OVER
        if not ended and status.get("runKey"):
            active.append(str(status["runKey"]))
        mode = ((body.get("spec") or {}).get("rollout") or {}).get("mode")
        only_stored = mode == RolloutMode.NONE and status.get("phase") == Phase.SUCCEEDED
        if digest and (only_stored or not ended):
            candidates.append(digest)
        if (
            digest
            and rollout.get("phase") == RolloutPhase.SUCCEEDED
            and status.get("phase") == Phase.SUCCEEDED
        ):
            place = f"{body['metadata']['namespace']}/{rollout.get('target', '')}"
            digests = history.setdefault(place, [])
            if digest not in digests:
                digests.append(digest)
    return ProtectedModels(
        history=history,
        live=sorted({digest for body in templates for digest in _pinned(body)}),
        candidates=sorted(set(candidates)),
        active_run_keys=sorted(set(active)),
    )


def _live_since(body: Json) -> tuple[str, str]:
    status = body.get("status") or {}
    return str(status.get("completionTime") or ""), str(body["metadata"].get("creationTimestamp") or "")


def _pinned(body: Json) -> Iterator[str]:
    """Digests in the three variables of a pod template."""
    pod = ((body.get("spec") or {}).get("template") or {}).get("spec") or {}
    for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
        for entry in container.get("env") or ():
            if entry.get("name") in MODEL_VARIABLES[1:]:
                digest = str(entry.get("value") or "").removeprefix(_PREFIX)
                if _is_digest(digest):
                    yield digest


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
