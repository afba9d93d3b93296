"""What a status write is news of: told once, and only what changed."""

from __future__ import annotations

import pytest

from finetune_contract.run_status import FineTuneRunStatus, Phase, PodUse, RolloutPhase, Usage
from finetune_contract.stage_protocol import Stage
from finetune_operator.status_news import EndedAttempt, EndedRun, EndedWait, StatusNews, status_news
from tests.finetune_operator.full_metrics import over, rolled_out, trained
from tests.finetune_operator.samples import a_status, an_attempt, at

RUNNING = a_status(attempts=[an_attempt(Stage.TRAIN, started_at=at(0))])
HOUSED = a_status(
    attempts=[
        an_attempt(Stage.TRAIN, started_at=at(0), queue_seconds=60, pods=[PodUse(name="p", since=at(60))])
    ]
)
NEVER_HOUSED = a_status(
    attempts=[an_attempt(Stage.TRAIN, 0, "Unschedulable", started_at=at(0), finished_at=at(900))]
)


@pytest.mark.parametrize(
    ("before", "after", "news"),
    [
        (FineTuneRunStatus(), RUNNING, StatusNews()),
        (RUNNING, HOUSED, StatusNews(waits=(EndedWait(Stage.TRAIN, 60.0),))),
        (
            HOUSED,
            trained(),
            StatusNews(ended=(EndedAttempt(Stage.TRAIN, "Succeeded", 600.0),), gpu_seconds=600),
        ),
        (RUNNING, NEVER_HOUSED, StatusNews(ended=(EndedAttempt(Stage.TRAIN, "Unschedulable", None),))),
        (trained(), trained(), StatusNews()),
        (trained(lost=600), trained(lost=100), StatusNews(lost_gpu_seconds=-500)),
        (RUNNING, over(), StatusNews(run=EndedRun(Phase.SUCCEEDED, 3600.0))),
        (over(), over(), StatusNews()),
        (RUNNING, a_status(phase=Phase.CANCELLED), StatusNews(run=EndedRun(Phase.CANCELLED, None))),
        (rolled_out(RolloutPhase.VERIFYING), rolled_out(RolloutPhase.VERIFYING), StatusNews()),
        (
            rolled_out(RolloutPhase.ROLLING_BACK),
            rolled_out(RolloutPhase.ROLLBACK_FAILED),
            StatusNews(rollout=RolloutPhase.ROLLBACK_FAILED),
        ),
    ],
    ids=[
        "begun",
        "housed",
        "succeeded",
        "never housed",
        "written again",
        "not lost after all",
        "over",
        "over already",
        "cancelled before its first Job",
        "rolls out",
        "rollback failed",
    ],
)
def test_news_is_what_the_status_before_did_not_say(before, after, news):
    assert status_news(before, after) == news


def test_a_second_attempt_is_news_beside_the_first():
    first = an_attempt(Stage.TRAIN, 0, "Evicted")
    second = an_attempt(Stage.TRAIN, 1, "Succeeded")

    news = status_news(a_status(attempts=[first]), a_status(attempts=[first, second]))

    assert [(attempt.result, attempt.succeeded) for attempt in news.ended] == [("Succeeded", True)]


def test_a_status_that_says_nothing_of_usage_takes_nothing_back():
    before = a_status(usage=Usage(gpu_seconds=60))

    assert status_news(before, a_status()).gpu_seconds == 0
