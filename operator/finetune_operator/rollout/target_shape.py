"""What a Deployment's manifest says about room, time and ownership, read from its JSON. Pure.

Must not know runs or models: room.py compares these facts with a model, reverts.py names the owners.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Json = Mapping[str, Any]
MODEL_VARIABLES = ("MODEL_URI", "MODEL_MANIFEST_SHA256", "MODEL_ID")
NO_DEADLINE_SECONDS = 2**31 - 1
"""progressDeadlineSeconds of a Deployment that asks for no deadline."""
DEFAULT_DEADLINE_SECONDS = 600
_SUFFIXES = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
    "Ei": 2.0**60,
}


@dataclass(frozen=True)
class Volume:
    """A volume that may hold models."""

    name: str
    claim: str = ""
    """PersistentVolumeClaim; empty for other kinds."""
    limit_bytes: int | None = None
    """sizeLimit of an emptyDir; None when there is none, or it is another kind."""
    in_memory: bool = False


@dataclass(frozen=True)
class Mount:
    """Where a container sees a volume."""

    container: str
    path: str
    volume: str


@dataclass(frozen=True)
class Writer:
    """A field manager of the Deployment."""

    manager: str
    time: str = ""
    owns: tuple[str, ...] = ()
    """Which of the three model variables it owns in the containers where they are ours."""


@dataclass(frozen=True)
class TargetShape:
    """The manifest's facts; the defaults are those of the API server for one replica."""

    progress_deadline_seconds: int = DEFAULT_DEADLINE_SECONDS
    min_ready_seconds: int = 0
    recreates: bool = False
    """All old pods go before a new one comes."""
    max_surge: int = 1
    """Pods, resolved against the wanted replicas."""
    max_unavailable: int = 0
    memory_limits: tuple[tuple[str, int], ...] = ()
    """Bytes by container; without an entry there is no limit."""
    pod_memory_bytes: int = 0
    """What a pod requests; 0 when nothing is requested."""
    volumes: tuple[Volume, ...] = ()
    mounts: tuple[Mount, ...] = ()
    writers: tuple[Writer, ...] = ()
    """Everybody but ourselves, oldest first; writers of the status do not count."""

    def memory_limit(self, container: str) -> int | None:
        """Bytes that a container may use; None without a limit."""
        return dict(self.memory_limits).get(container)

    def volume_at(self, container: str, path: str) -> Volume | None:
        """The volume that a container has at a path; None when the path lies on the image's own disk."""
        inside = [
            mount
            for mount in self.mounts
            if mount.container == container
            and f"{path.rstrip('/')}/".startswith(f"{mount.path.rstrip('/')}/")
        ]
        nearest = max(inside, key=lambda mount: len(mount.path), default=None)
        if nearest is None:
            return None
        return next((volume for volume in self.volumes if volume.name == nearest.volume), None)

    def with_claim(self, claim: str, size_bytes: int) -> TargetShape:
        """The same, knowing how large a PersistentVolumeClaim is."""
        volumes = tuple(
            replace(volume, limit_bytes=size_bytes or None) if volume.claim == claim else volume
            for volume in self.volumes
        )
        return replace(self, volumes=volumes)


ANY_SHAPE = TargetShape()


def target_shape(body: Json, own_manager: str, ours: Mapping[str, tuple[str, ...]]) -> TargetShape:
    """The shape of a Deployment as the API server gives it.

    Args:
        ours: by container, the variables whose owners count.
    """
    spec = body.get("spec") or {}
    pod = (spec.get("template") or {}).get("spec") or {}
    strategy = spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    replicas = 1 if spec.get("replicas") is None else int(spec["replicas"])
    surge, unavailable = resolved_fence(
        rolling.get("maxSurge", "25%"), rolling.get("maxUnavailable", "25%"), replicas
    )
    inits, mains = pod.get("initContainers") or (), pod.get("containers") or ()
    limits = ((entry["name"], _resource(entry, "limits")) for entry in (*inits, *mains))
    deadline = spec.get("progressDeadlineSeconds")
    return TargetShape(
        progress_deadline_seconds=DEFAULT_DEADLINE_SECONDS if deadline is None else int(deadline),
        min_ready_seconds=int(spec.get("minReadySeconds") or 0),
        recreates=strategy.get("type") == "Recreate",
        max_surge=surge,
        max_unavailable=unavailable,
        memory_limits=tuple((name, limit) for name, limit in limits if limit),
        pod_memory_bytes=_pod_request(inits, mains),
        volumes=tuple(_volume(entry) for entry in pod.get("volumes") or ()),
        mounts=tuple(
            Mount(entry["name"], str(mount.get("mountPath") or ""), str(mount.get("name") or ""))
            for entry in (*inits, *mains)
            for mount in entry.get("volumeMounts") or ()
        ),
        writers=_writers(body, own_manager, ours),
    )


def resolved_fence(surge: str | int, unavailable: str | int, replicas: int) -> tuple[int, int]:
    """maxSurge and maxUnavailable in pods, as the Deployment's controller resolves them (ResolveFenceposts).

    Shares of the replicas are rounded up for the surge and down for the other; both zero means one pod less.
    """

    def pods(value: str | int, rounded: Any) -> int:
        text = str(value)
        if text.endswith("%") and text[:-1].isdigit():
            return int(rounded(int(text[:-1]) * replicas / 100))
        return int(text) if text.isdigit() else 0

    more, fewer = pods(surge, math.ceil), pods(unavailable, math.floor)
    return (more, fewer) if more or fewer else (0, 1)


def quantity(text: object) -> int:
    """A Kubernetes quantity such as `512Mi`, `1.5G` or `1e9` as a whole number; 0 when it is none."""
    words = str(text if text is not None else "")
    suffix = next((s for s in sorted(_SUFFIXES, key=len, reverse=True) if words.endswith(s)), "")
    try:
        return int(float(words.removesuffix(suffix)) * _SUFFIXES.get(suffix, 1.0))
    except (ValueError, OverflowError):
        return 0


def claim_size(body: Json) -> int:
    """Bytes of a PersistentVolumeClaim: what it got, or else asked for; 0 when it says neither."""
    got = ((body.get("status") or {}).get("capacity") or {}).get("storage")
    asked = (((body.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage")
    return quantity(got) or quantity(asked)


def _resource(container: Json, kind: str) -> int:
    return quantity(((container.get("resources") or {}).get(kind) or {}).get("memory"))


def _pod_request(inits: Any, mains: Any) -> int:
    """Sidecars and containers together, or one init container when that is more. Limits count where no request is."""

    def wants(entry: Json) -> int:
        return _resource(entry, "requests") or _resource(entry, "limits")

    sidecars = sum(wants(entry) for entry in inits if entry.get("restartPolicy") == "Always")
    once = max((wants(entry) for entry in inits if entry.get("restartPolicy") != "Always"), default=0)
    return max(once, sidecars + sum(wants(entry) for entry in mains))


def _volume(body: Json) -> Volume:
    empty, claim = body.get("emptyDir"), body.get("persistentVolumeClaim") or {}
    limit = quantity(empty.get("sizeLimit")) if isinstance(empty, Mapping) else 0
    return Volume(
        name=str(body.get("name") or ""),
        claim=str(claim.get("claimName") or ""),
        limit_bytes=limit or None,
        in_memory=isinstance(empty, Mapping) and empty.get("medium") == "Memory",
    )


def _writers(body: Json, own_manager: str, ours: Mapping[str, tuple[str, ...]]) -> tuple[Writer, ...]:
    found = [
        Writer(
            str(entry.get("manager") or ""), str(entry.get("time") or ""), _owned(entry.get("fieldsV1"), ours)
        )
        for entry in (body.get("metadata") or {}).get("managedFields") or ()
        if not entry.get("subresource") and entry.get("manager") != own_manager
    ]
    return tuple(sorted(found, key=lambda writer: writer.time))


def _owned(fields: object, ours: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Model variables in a managedFields entry: keys such as `k:{"name":"MODEL_URI"}` below `f:env` of a container."""
    pod = _below(fields, "f:spec", "f:template", "f:spec")
    found = {
        name
        for containers in ("f:initContainers", "f:containers")
        for container, names in ours.items()
        for name in names
        if _key(name) in _below(pod, containers, _key(container), "f:env")
    }
    return tuple(name for name in MODEL_VARIABLES if name in found)


def _below(node: object, *keys: str) -> Mapping[str, object]:
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _key(name: str) -> str:
    return f'k:{{"name":"{name}"}}'
