"""Names of what a run owns. The same run always gives the same names, so that nothing is made twice. Pure."""

from __future__ import annotations

import hashlib

from finetune_contract.stage_protocol import Stage

MAX_LENGTH = 63
"""Of a label value; a Job's name becomes one on its pods."""
JOB_LENGTH = 60
"""A pod of an Indexed Job has the Job's name and its index, up to `-63`, as host name, which is a label too."""
HASH_LENGTH = 8


def config_map_name(run_name: str, run_uid: str) -> str:
    """The ConfigMap with the run file."""
    return _name(run_name, run_uid, "run")


def job_name(run_name: str, run_uid: str, stage: Stage, attempt: int) -> str:
    """The Job of one attempt of one stage."""
    return _job_name(run_name, run_uid, f"{stage.value}-{attempt}")


def smoke_test_name(run_name: str, run_uid: str, attempt: int) -> str:
    """The Job that tries the model beside the target."""
    return _job_name(run_name, run_uid, f"smoke-{attempt}")


def service_name(run_uid: str, stage: Stage) -> str:
    """The Service by which the pods of a stage find each other. It must start with a letter; a run need not."""
    return f"{stage.value}-{_digest(run_uid)}"


def run_label(run_name: str, run_uid: str) -> str:
    """The run's name as a label value."""
    if len(run_name) <= MAX_LENGTH:
        return run_name
    return _name(run_name, run_uid, "")


def _job_name(run_name: str, run_uid: str, ending: str) -> str:
    return _name(run_name, run_uid, ending, JOB_LENGTH).replace(".", "-")


def _name(run_name: str, run_uid: str, ending: str, length: int = MAX_LENGTH) -> str:
    tail = f"-{_digest(run_uid)}-{ending}" if ending else f"-{_digest(run_uid)}"
    return run_name[: length - len(tail)].rstrip("-.") + tail


def _digest(run_uid: str) -> str:
    return hashlib.sha256(run_uid.encode()).hexdigest()[:HASH_LENGTH]
