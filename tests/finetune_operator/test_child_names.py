"""Names of what a run owns."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.stage_protocol import Stage
from finetune_operator.child_names import config_map_name, job_name, run_label, service_name

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,80}[a-z0-9])?", fullmatch=True)
LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"


@given(name=NAMES, uid=st.uuids(), stage=st.sampled_from(Stage), attempt=st.integers(0, 9999))
def test_names_are_valid_short_enough_and_stable(name, uid, stage, attempt):
    made = job_name(name, str(uid), stage, attempt)

    assert re.fullmatch(LABEL, f"{made}-63"), "the host name of the last pod of an Indexed Job"
    assert len(f"{made}-63") <= 63
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", service_name(str(uid), stage))
    assert made == job_name(name, str(uid), stage, attempt)
    assert made.endswith(f"-{stage}-{attempt}")
    assert len(config_map_name(name, str(uid))) <= 63
    assert len(run_label(name, str(uid))) <= 63


def test_a_run_made_again_under_its_name_gets_other_names():
    assert job_name("blog", "uid-1", Stage.TRAIN, 0) != job_name("blog", "uid-2", Stage.TRAIN, 0)
