"""Each ready pod must name the very model that was rolled out."""

from __future__ import annotations

import pytest

from finetune_operator.observed import ServedModel
from finetune_operator.rollout.progress import Complete, Failed, Waiting
from finetune_operator.rollout.verification import verify


@pytest.mark.parametrize(
    ("served", "replicas", "expected"),
    [
        ((), 1, Waiting),
        ((ServedModel("a", "sha256:new"),), 1, Complete),
        ((ServedModel("a", "sha256:new"),), 2, Waiting),
        ((ServedModel("a", "sha256:new"), ServedModel("b", "sha256:old")), 2, Failed),
        ((ServedModel("a", problem="refused"), ServedModel("b", "sha256:old")), 2, Failed),
        ((ServedModel("a", "sha256:new"), ServedModel("b", problem="refused")), 2, Waiting),
    ],
)
def test_the_answers_decide(served, replicas, expected):
    assert isinstance(verify(served, "sha256:new", replicas), expected)
