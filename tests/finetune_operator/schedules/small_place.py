"""A schedule with the runs that it makes, in memory. Not a test itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_contract.run_status import Phase
from finetune_contract.schedule_spec import FineTuneScheduleSpec
from finetune_contract.schedule_status import Cause, FineTuneScheduleStatus
from finetune_operator.schedules.decide import decide
from finetune_operator.schedules.observed import (
    CancelRun,
    ChildRun,
    CreateRun,
    DeleteRun,
    Schedule,
    ScheduleDecision,
)
from finetune_operator.schedules.run_manifest import LABEL_CAUSE
from finetune_operator.timestamps import to_rfc3339

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
"""A Monday."""
RUN_SPEC: dict[str, Any] = {
    "baseModel": {"uri": "hf://google/gemma-2-2b"},
    "dataset": {"sources": [{"name": "blog", "wordpress": {"url": "https://blog.example"}}]},
    "store": {"s3": {"bucket": "models"}},
}
CONTENT = {"minChangedPosts": 5, "debounceSeconds": 600, "maxWaitSeconds": 86_400, "checkEverySeconds": 3600}


@dataclass
class Place:
    """What the API server would hold, and what time it is."""

    wishes: dict[str, Any]
    now: datetime = NOON
    status: FineTuneScheduleStatus = field(default_factory=FineTuneScheduleStatus)
    children: dict[str, ChildRun] = field(default_factory=dict)
    made: dict[str, CreateRun] = field(default_factory=dict)
    """Every run that was ever made."""
    born: dict[str, datetime] = field(default_factory=dict)
    """When each was made."""
    created_at: datetime = NOON
    server_time: datetime = NOON - timedelta(seconds=1)
    """What the API server writes into what it makes: later each time, whatever the operator's clock says."""

    def stamp(self) -> str:
        self.server_time = max(self.server_time + timedelta(seconds=1), self.now)
        return to_rfc3339(self.server_time)

    @property
    def schedule(self) -> Schedule:
        wire = {"template": {"spec": RUN_SPEC}} | self.wishes
        return Schedule(
            namespace="ml",
            name="blog",
            uid="uid-1",
            generation=1,
            resource_version="1",
            created_at=to_rfc3339(self.created_at),
            spec=FineTuneScheduleSpec.model_validate(wire),
            template=wire["template"],
            status=self.status,
        )

    def look(self, *, status_is_lost: bool = False) -> ScheduleDecision:
        """Decide and do it."""
        decision = decide(self.schedule, tuple(self.children.values()), self.now)
        for action in decision.actions:
            match action:
                case CreateRun(name, manifest):
                    if name not in self.children:
                        assert name not in self.made, f"{name} was made twice"
                        cause = Cause(manifest["metadata"]["labels"][LABEL_CAUSE])
                        self.made[name] = action
                        self.children[name] = ChildRun(name, f"u-{name}", cause, self.stamp())
                        self.born[name] = self.server_time
                case CancelRun(name):
                    self.children[name] = replace(self.children[name], cancelled=True)
                case DeleteRun(name):
                    del self.children[name]
        if not status_is_lost:
            self.status = decision.status
        return decision

    def later(self, **duration: float) -> ScheduleDecision:
        """Time passes, and the schedule is looked at."""
        self.now += timedelta(**duration)
        return self.look()

    @property
    def under_way(self) -> list[str]:
        return [child.name for child in self.children.values() if not child.over]

    def end(
        self,
        name: str,
        phase: Phase = Phase.SUCCEEDED,
        *,
        digest: str = "",
        key: str = "",
        changed: int | None = None,
    ) -> None:
        """A run ends, and its schedule is looked at."""
        self.children[name] = replace(
            self.children[name],
            phase=phase,
            completed_at=to_rfc3339(max(self.server_time, self.now)),
            dataset_digest=digest,
            run_key=key or (f"key of {digest}" if digest else ""),
            changed_posts=changed,
        )
        self.look()

    def end_the_one(self, phase: Phase = Phase.SUCCEEDED, **facts: Any) -> str:
        (name,) = self.under_way
        self.end(name, phase, **facts)
        return name

    def spec_of(self, name: str) -> dict[str, Any]:
        spec: dict[str, Any] = self.made[name].manifest["spec"]
        return spec

    @property
    def words(self) -> str:
        (ready,) = [found for found in self.status.conditions if found.type == "Ready"]
        return f"{ready.status} {ready.reason}: {ready.message}"


def with_live_model(**wishes: Any) -> Place:
    """A schedule by content whose first model was made of the dataset `d0`."""
    place = Place({"onContentChange": CONTENT | wishes})
    place.look()
    place.now += timedelta(minutes=30)
    place.end_the_one(digest="d0")
    return place
