"""What this container may use of memory and processors, from the files of cgroup v2 or v1. Must not know models."""

from __future__ import annotations

import math
import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_NO_LIMIT_BYTES = 1 << 60


def memory_limit_bytes(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int | None:
    """The tightest memory limit that holds for this process, or None."""
    limits = [
        int(text)
        for folder in _folders(root, membership, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := _read(folder / name)).isdigit() and int(text) < _NO_LIMIT_BYTES
    ]
    return min(limits, default=None)


def cpu_limit(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> float | None:
    """The tightest quota in whole processors' worth of time, or None."""
    quotas: list[float] = []
    for folder in _folders(root, membership, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def usable_threads(limit: float | None, processors: int) -> int:
    """Threads that can run at the same time: one more than the quota allows would stall all the others."""
    return max(1, min(processors, math.floor(limit) if limit is not None else processors))


def processors() -> int:
    """Processors that this process may be scheduled on."""
    return len(os.sched_getaffinity(0))


def _folders(root: Path, membership: Path, controller: str) -> list[Path]:
    """The group's folder and its parents, below each mount where the controller may be."""
    folders: list[Path] = []
    for line in [*_read(membership).splitlines(), "0::/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = (root, root / "unified") if not controllers else (root / controllers, root / controller)
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            folders += [mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    folders += [root / controller]
    return folders


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
