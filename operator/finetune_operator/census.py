"""Where all runs are, for whoever counts them: a phase a run, and since when it waits for a node. Pure.

Kept small, for there are thousands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from finetune_contract.run_status import Phase
from finetune_contract.stage_protocol import Stage
from finetune_operator import reading
from finetune_operator.observed import RunKey
from finetune_operator.timestamps import seconds_since

Json = Mapping[str, Any]


class Census:
    """All runs that are known, those that ended too."""

    def __init__(self) -> None:
        self._phases: dict[RunKey, Phase] = {}
        self._waiting: dict[RunKey, tuple[Stage, str]] = {}
        """Runs whose attempt has not had a node yet: its stage, and when it was begun."""

    def seen(self, key: RunKey, body: Json) -> None:
        """The run is there, and so."""
        self._phases[key] = reading.phase_of(body)
        waits = reading.waits_for_node(body)
        if waits is None:
            self._waiting.pop(key, None)
        else:
            self._waiting[key] = waits

    def gone(self, key: RunKey) -> None:
        """The run is not there any more."""
        self._phases.pop(key, None)
        self._waiting.pop(key, None)

    def by_phase(self) -> dict[tuple[str, Phase], int]:
        """How many runs, by namespace and phase: all phases of each namespace that has runs."""
        counted = Counter((key.namespace, phase) for key, phase in self._phases.items())
        namespaces = sorted({namespace for namespace, _ in counted})
        return {(namespace, phase): counted[namespace, phase] for namespace in namespaces for phase in Phase}

    def longest_waits(self, now: datetime) -> dict[Stage, float]:
        """For how many seconds the attempt that waits longest has waited, by stage; 0 where none waits."""
        longest = dict.fromkeys(Stage, 0.0)
        for stage, since in self._waiting.values():
            longest[stage] = max(longest[stage], seconds_since(since, now))
        return longest
