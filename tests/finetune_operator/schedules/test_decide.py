"""When a schedule makes runs: the clock, Git, the posts, and what stands in the way."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_contract.run_status import Phase
from finetune_contract.schedule_status import Cause
from finetune_operator.schedules.observed import CancelRun, CreateRun
from tests.finetune_operator.schedules.small_place import CONTENT, RUN_SPEC, Place, with_live_model

WEEKLY = {"cron": "0 3 * * 1", "timeZone": "Europe/Berlin"}
MONDAY_3 = datetime(2026, 6, 8, 1, tzinfo=UTC)


def names(place: Place) -> list[str]:
    return list(place.made)


# the clock


def test_nothing_is_made_before_the_first_time_of_cron_and_the_next_one_is_told():
    place = Place(WEEKLY)

    decision = place.look()

    assert names(place) == []
    assert place.status.next_schedule_time == "2026-06-08T01:00:00Z"
    assert decision.requeue_after == 3600
    assert place.words == "True Waiting: next time of cron 2026-06-08T01:00:00Z"


def test_a_time_of_cron_makes_one_run_named_by_the_minute_however_often_it_is_seen():
    place = Place(WEEKLY)
    place.now = MONDAY_3
    place.look(status_is_lost=True)
    place.look(status_is_lost=True)
    place.now += timedelta(minutes=5)
    place.look()
    place.end_the_one(digest="d1")
    place.later(hours=1)

    assert names(place) == [f"blog-{int(MONDAY_3.timestamp()) // 60}"]
    assert place.status.last_schedule_time == "2026-06-08T01:00:00Z"


def test_after_a_month_of_downtime_the_newest_time_is_made_up_for_once():
    place = Place(WEEKLY)
    place.now = MONDAY_3 + timedelta(days=28, hours=5)
    place.look()
    place.end_the_one(digest="d1")
    place.later(minutes=1)

    assert names(place) == [f"blog-{int((MONDAY_3 + timedelta(days=28)).timestamp()) // 60}"]


def test_a_time_that_is_too_long_ago_is_left_out():
    place = Place(WEEKLY | {"startingDeadlineSeconds": 600})
    place.now = MONDAY_3 + timedelta(minutes=11)

    place.look()

    assert names(place) == []


@pytest.mark.parametrize(
    "before", [{"revision": "a"}, {"cron": "30 4 * * *"}, WEEKLY | {"timeZone": "Asia/Tokyo"}]
)
def test_a_clock_that_is_set_anew_has_missed_nothing_yet_and_what_it_misses_later_is_made_up_for(
    before: dict[str, Any],
) -> None:
    place = Place(before | {"suspend": True})
    place.look()
    place.now = MONDAY_3 + timedelta(hours=1)
    place.wishes = dict(WEEKLY)
    place.look()
    place.later(minutes=1)
    early = names(place)

    place.now = MONDAY_3 + timedelta(days=7, hours=1)
    place.look()

    assert early == []
    assert names(place) == [f"blog-{int((MONDAY_3 + timedelta(days=7)).timestamp()) // 60}"]


def test_a_run_of_the_clock_ends_unchanged_when_it_comes_to_the_live_model():
    place = with_live_model()
    place.wishes |= WEEKLY
    place.look()
    place.now = MONDAY_3
    place.look()
    (name,) = place.under_way

    assert place.spec_of(name)["compareWith"] == {"runKey": "key of d0", "datasetDigest": "d0"}
    assert "lastStage" not in place.spec_of(name)


# Git


def test_each_new_revision_makes_a_run_and_an_earlier_one_that_comes_back_does_too():
    place = Place({"revision": "a"})
    for revision in ("a", "b", "a", "b"):
        place.wishes["revision"] = revision
        place.look()
        place.later(seconds=1)
        place.end_the_one(digest=f"d{len(place.made)}")

    assert len(names(place)) == 4
    assert all(name.startswith("blog-r-") for name in names(place))
    assert place.status.revision == "b"


def test_a_run_for_a_revision_rolls_out_its_model_even_when_it_is_the_one_before():
    place = with_live_model()
    place.wishes["revision"] = "commit 2"
    place.look()
    (name,) = place.under_way

    assert place.spec_of(name)["compareWith"] == {"datasetDigest": "d0"}


def test_one_run_answers_a_revision_and_a_time_that_come_together():
    place = Place(WEEKLY | {"revision": "a"})
    place.now = MONDAY_3
    place.look()
    place.end_the_one(digest="d1")
    place.later(minutes=1)

    assert len(names(place)) == 1


# the posts


def test_the_first_model_is_made_at_once():
    place = Place({"onContentChange": CONTENT})
    place.look()

    assert [child.cause for child in place.children.values()] == [Cause.CONTENT]


def test_posts_are_looked_at_by_a_run_that_ends_at_its_dataset():
    place = with_live_model()
    early = place.later(minutes=59)
    assert place.under_way == []
    assert early.requeue_after == pytest.approx(60.5)

    place.later(minutes=1)

    (name,) = place.under_way
    assert name.startswith("blog-check-")
    assert place.spec_of(name)["lastStage"] == "dataset"
    assert place.spec_of(name)["compareWith"] == {"runKey": "key of d0", "datasetDigest": "d0"}


def look_at_posts(place: Place, digest: str, changed: int) -> None:
    """The next look comes, and finds this."""
    while not place.under_way:
        place.later(minutes=1)
    assert "check" in place.under_way[0], place.under_way
    place.end_the_one(Phase.SUCCEEDED if changed else Phase.UNCHANGED, digest=digest, changed=changed)


def test_too_few_changes_train_nothing_and_are_told():
    place = with_live_model()
    look_at_posts(place, "d1", 4)

    assert place.under_way == []
    assert "4 of 5 posts have changed" in place.words
    assert place.status.content is not None
    assert place.status.content.changed_posts == 4


def test_enough_changes_train_once_they_have_come_to_rest():
    place = with_live_model()
    look_at_posts(place, "d1", 5)
    first_seen = place.now
    look_at_posts(place, "d2", 7)
    assert place.under_way == []

    look_at_posts(place, "d2", 7)

    (name,) = place.under_way
    assert name.startswith("blog-c-")
    assert timedelta(minutes=20) <= place.now - first_seen <= timedelta(minutes=22)
    place.end_the_one(digest="d2")
    assert place.status.content is None
    assert place.status.live is not None
    assert place.status.live.dataset_digest == "d2"


def test_without_a_debounce_enough_changes_train_at_once():
    place = with_live_model(debounceSeconds=0)
    look_at_posts(place, "d1", 5)

    assert place.under_way[0].startswith("blog-c-")


def test_a_small_change_waits_no_longer_than_it_may():
    place = with_live_model()
    look_at_posts(place, "d1", 1)
    since = place.now
    for _ in range(40):
        if place.under_way and not place.under_way[0].startswith("blog-check"):
            break
        if place.under_way:
            place.end_the_one(digest="d1", changed=1)
        place.later(hours=1)

    assert place.under_way[0].startswith("blog-c-")
    assert timedelta(hours=24) <= place.now - since <= timedelta(hours=25)


def test_content_that_a_run_failed_on_is_not_tried_again_by_itself():
    place = with_live_model(debounceSeconds=0)
    look_at_posts(place, "d1", 5)
    failed = place.end_the_one(Phase.FAILED, digest="d1")
    look_at_posts(place, "d1", 5)

    assert place.under_way == []
    assert f"{failed} was trained on them and ended Failed" in place.words
    look_at_posts(place, "d2", 6)
    assert place.under_way[0].startswith("blog-c-")


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.UNCHANGED])
def test_a_run_for_the_posts_that_came_to_nothing_is_not_followed_by_another_before_they_are_looked_at(
    phase: Phase,
):
    place = with_live_model(debounceSeconds=0)
    look_at_posts(place, "d1", 5)
    waits_since = place.status.content
    assert waits_since is not None
    place.end_the_one(phase)
    assert place.under_way == []
    assert place.status.content is not None
    assert place.status.content.changed_since == waits_since.changed_since

    place.later(minutes=59)
    assert place.under_way == []
    look_at_posts(place, "d1", 5)

    assert place.under_way[0].startswith("blog-c-")


def test_a_look_that_failed_is_named_and_the_next_one_comes():
    place = with_live_model()
    place.later(hours=1)
    failed = place.end_the_one(Phase.FAILED)

    assert f"the last look failed: kubectl describe finetunerun {failed}" in place.words
    place.later(hours=1)
    assert place.under_way
    assert place.under_way != [failed]


def test_a_first_training_that_did_not_come_to_a_dataset_is_tried_again_later():
    place = Place({"onContentChange": CONTENT})
    place.look()
    first = place.end_the_one(Phase.FAILED)
    assert place.under_way == []

    place.later(hours=1)

    assert place.under_way
    assert place.under_way != [first]
    assert place.children[place.under_way[0]].cause is Cause.CONTENT


# what stands in the way


def test_a_suspended_schedule_makes_nothing_and_goes_on_where_it_was():
    place = Place(WEEKLY | {"suspend": True, "revision": "a", "onContentChange": CONTENT})
    place.now = MONDAY_3
    decision = place.look()

    assert names(place) == []
    assert decision.requeue_after is None
    assert place.words.startswith("True Suspended: suspended; set spec.suspend to false")
    place.wishes["suspend"] = False
    place.look()
    assert len(names(place)) == 1


def test_a_run_that_is_due_waits_for_the_one_before():
    place = Place({"revision": "a"})
    place.look()
    (first,) = place.under_way
    place.wishes["revision"] = "b"
    place.look()

    assert place.under_way == [first]
    assert f"a run is due (Revision) and waits until {first} has ended" in place.words
    place.end(first, digest="d1")
    assert len(names(place)) == 2


def test_a_run_that_is_due_takes_the_place_of_the_one_before_once_that_has_ended():
    place = Place({"revision": "a", "concurrencyPolicy": "Replace"})
    place.look()
    (first,) = place.under_way
    place.wishes["revision"] = "b"

    assert place.look().actions == (CancelRun(first),)
    assert place.look().actions == ()
    place.end(first, Phase.CANCELLED)
    assert len(place.under_way) == 1
    assert place.under_way != [first]


def test_runs_may_go_side_by_side():
    place = Place({"revision": "a", "concurrencyPolicy": "Allow"})
    place.look()
    place.wishes["revision"] = "b"
    place.look()

    assert len(place.under_way) == 2


def test_a_look_at_the_posts_gives_way_to_a_training():
    place = with_live_model()
    place.later(hours=1)
    (check,) = place.under_way
    place.wishes["revision"] = "a"

    assert place.look().actions == (CancelRun(check),)
    place.end(check, Phase.CANCELLED)
    assert place.under_way[0].startswith("blog-r-")


def test_a_schedule_whose_run_waits_for_a_person_says_so_until_the_run_goes_on():
    place = Place({"revision": "a"})
    place.look()
    (name,) = place.under_way
    going = place.children[name]
    place.children[name] = replace(going, stalled="Deployment chat does not exist; create it")
    place.wishes["revision"] = "b"
    place.look()

    waits = f"False RunStalled: {name} waits for a person: Deployment chat does not exist; create it"
    assert place.words == waits
    place.children[name] = going
    place.look()
    assert place.words.startswith("True RunUnderWay")
    place.children[name] = replace(going, stalled="out of memory")
    place.end(name, Phase.FAILED)
    assert place.words.startswith("True")


def test_what_cannot_be_read_is_said_and_makes_nothing():
    place = Place({"cron": "99 3 * * 1", "revision": "a"})
    place.look()

    assert names(place) == []
    assert place.words.startswith("False InvalidSpec: spec.cron: '99 3 * * 1' cannot be read")


# what is left


def test_ended_runs_are_kept_as_many_as_the_history_says_and_the_live_one_always():
    place = Place({"revision": "0", "history": {"succeeded": 2, "failed": 1}})
    live = ""
    ends = [Phase.SUCCEEDED, Phase.FAILED, Phase.ROLLED_BACK, *[Phase.UNCHANGED] * 3, Phase.NOT_PROMOTED]
    for number, phase in enumerate(ends):
        place.wishes["revision"] = str(number)
        place.later(minutes=10)
        ended = place.end_the_one(phase, digest=f"d{number}")
        live = live or ended

    kept = [(child.phase, child.name == live) for child in place.children.values()]
    assert kept == [
        (Phase.SUCCEEDED, True),
        (Phase.UNCHANGED, False),
        (Phase.UNCHANGED, False),
        (Phase.NOT_PROMOTED, False),
    ]
    assert place.status.live is not None
    assert place.status.live.run == live


def test_a_failed_run_that_the_history_does_not_keep_stays_the_last_one():
    place = Place({"revision": "a", "history": {"failed": 0}})
    place.look()
    place.end_the_one(digest="d1")
    place.wishes["revision"] = "b"
    place.later(hours=1)
    failed = place.end_the_one(Phase.FAILED, digest="d2")
    assert failed not in place.children

    place.later(minutes=5)

    assert place.status.last_run is not None
    assert (place.status.last_run.name, place.status.last_run.phase) == (failed, Phase.FAILED)
    place.wishes["revision"] = "c"
    place.later(minutes=5)
    assert place.status.last_run.name == place.under_way[0]


def test_of_the_looks_at_the_posts_the_last_one_is_kept():
    place = with_live_model()
    for number in range(5):
        look_at_posts(place, f"d{number}", 1)

    assert len([child for child in place.children.values() if child.is_check]) == 1


def test_a_run_bears_the_templates_labels_its_owner_and_why_it_was_made():
    place = Place({"revision": "a"})
    place.wishes["template"] = {
        "metadata": {"labels": {"team": "docs"}, "annotations": {"note": "weekly"}},
        "spec": RUN_SPEC,
    }
    (action,) = place.look().actions
    assert isinstance(action, CreateRun)
    metadata: dict[str, Any] = action.manifest["metadata"]

    assert metadata["labels"] == {
        "team": "docs",
        "finetune-operator.io/schedule": "blog",
        "finetune-operator.io/schedule-uid": "uid-1",
        "finetune-operator.io/cause": "Revision",
    }
    assert metadata["annotations"] == {"note": "weekly"}
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("FineTuneSchedule", "uid-1", True)
    assert action.manifest["spec"] == RUN_SPEC


def test_a_second_look_at_the_same_says_the_same():
    place = Place(WEEKLY | {"onContentChange": CONTENT})
    place.look()
    place.end_the_one(digest="d0")
    place.later(hours=2)
    said = place.status

    assert place.look().status == said
