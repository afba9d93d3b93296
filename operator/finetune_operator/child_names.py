"""Names of what a run owns. The same run always gives the same names, so that nothing is made twice. Pure."""

from __future__ import annotations

import hashlib

from finetune_contract.stage_protocol import Stage

MAX_LENGTH = 63
"""Of a label value; a Job's name becomes one on its pods."""
HASH_LENGTH = 8


def config_map_name(run_name: str, run_uid: str) -> str:
    """The ConfigMap with the run file."""
    return _name(run_name, run_uid, "run")


def job_name(run_name: str, run_uid: str, stage: Stage, attempt: int) -> str:
    """The Job of one attempt of one stage."""
    return _name(run_name, run_uid, f"{stage.value}-{attempt}")


def run_label(run_name: str, run_uid: str) -> str:
    """The run's name as a label value."""
    if len(run_name) <= MAX_LENGTH:
        return run_name
    return _name(run_name, run_uid, "")


def _name(run_name: str, run_uid: str, ending: str) -> str:
    digest = hashlib.sha256(run_uid.encode()).hexdigest()[:HASH_LENGTH]
    tail = f"-{digest}-{ending}" if ending else f"-{digest}"
    return run_name[: MAX_LENGTH - len(tail)].rstrip("-.") + tail
