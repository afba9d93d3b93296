"""What the API server's audit log tells: how soon the operator acted, and what it asked for. Pure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from benchmarks.operator_scale_cluster import OPERATOR, SIMULATOR
from benchmarks.operator_scale_jobs import ENDED

NOT_OF_A_RUN = ("leases",)
"""What is asked for however many runs there are."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One line of the audit log."""

    user: str
    verb: str
    resource: str
    name: str
    uri: str
    began: float
    ended: float

    @property
    def run(self) -> str:
        """Name of the run that it is about; empty when it is about many."""
        if self.resource.startswith("finetuneruns"):
            return self.name
        if self.resource.startswith("jobs") or self.resource.startswith("pods"):
            return run_of_job(self.name)
        return ""

    @property
    def kind(self) -> str:
        """Verb and resource; a list of one run's children is told from one of all."""
        of_all = self.verb == "list" and "run-uid" not in self.uri
        return f"{self.verb} {self.resource}" + (" (all)" if of_all else "")


def run_of_job(name: str) -> str:
    """`run-00007-1a2b3c4d-train-0`, or a pod of it, belongs to `run-00007`."""
    parts = name.split("-")
    return "-".join(parts[:2]) if len(parts) >= 5 else ""


def read(lines: Iterable[str]) -> list[Request]:
    """The requests of operator and simulator, in the order in which they ended; watches are left out."""
    found = []
    for line in lines:
        event: Json = json.loads(line)
        if event["verb"] == "watch":
            continue
        about = event.get("objectRef") or {}
        resource = about.get("resource", "") + (
            f"/{about['subresource']}" if about.get("subresource") else ""
        )
        found.append(
            Request(
                user=event["user"]["username"],
                verb=event["verb"],
                resource=resource,
                name=about.get("name", ""),
                uri=event["requestURI"],
                began=_seconds(event["requestReceivedTimestamp"]),
                ended=_seconds(event["stageTimestamp"]),
            )
        )
    return found


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def reactions(requests: Iterable[Request]) -> list[float]:
    """Seconds from the end of each Job to what the operator did about it: the next Job, or the run's last status."""
    acts: dict[str, list[Request]] = defaultdict(list)
    ends: list[Request] = []
    for request in requests:
        if request.user == SIMULATOR and f"fieldManager={ENDED}" in request.uri:
            ends.append(request)
        elif request.user == OPERATOR and (request.verb, request.resource) in (
            ("create", "jobs"),
            ("patch", "finetuneruns/status"),
        ):
            acts[request.run].append(request)
    found = []
    for end in ends:
        last = "-evaluate-" in end.name
        wanted = "finetuneruns/status" if last else "jobs"
        later = (act for act in acts[end.run] if act.resource == wanted and act.began > end.ended)
        act = next(iter(sorted(later, key=lambda act: act.began)), None)
        if act is not None:
            found.append(act.began - end.ended)
    return found


def asked(requests: Iterable[Request]) -> Counter[str]:
    """How often the operator asked, by verb and resource."""
    return Counter(
        request.kind
        for request in requests
        if request.user == OPERATOR and request.resource not in NOT_OF_A_RUN
    )


def percentile(values: Iterable[float], share: float) -> float:
    """The value that so large a share does not exceed; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
