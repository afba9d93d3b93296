"""Other runs with the same target: one that is at it now, and one that was made later and is live. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_contract.run_status import RolloutPhase
from finetune_operator import reading
from finetune_operator.rollout.states import TOUCHED

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Rivals:
    """Names of runs; empty when there is none."""

    rolling: str = ""
    """Its rollout is under way."""
    newer: str = ""
    """It was made later, and its model went live."""


def rivals(uid: str, target: str, bodies: Iterable[Json]) -> Rivals:
    """What the runs of a namespace mean for the run of that uid.

    Args:
        target: name of the Deployment.
        bodies: every run of the namespace, this one too.
    """
    runs = [body for body in bodies if target in reading.targets_of(body)]
    mine = next((body for body in runs if body["metadata"]["uid"] == uid), None)
    others = [body for body in runs if body["metadata"]["uid"] != uid]
    rolling = next((_name(body) for body in others if _phase(body) in TOUCHED), "")
    later = [
        body
        for body in others
        if mine is not None and _age(body) > _age(mine) and _phase(body) == RolloutPhase.SUCCEEDED
    ]
    newest = max(later, key=_age, default=None)
    return Rivals(rolling, _name(newest) if newest else "")


def _phase(body: Json) -> str:
    return str(((body.get("status") or {}).get("rollout") or {}).get("phase") or "")


def _age(body: Json) -> tuple[str, str]:
    """Runs of the same second are told apart by name, so that one of them wins for everybody."""
    return str(body["metadata"].get("creationTimestamp") or ""), _name(body)


def _name(body: Json) -> str:
    return str(body["metadata"]["name"])
