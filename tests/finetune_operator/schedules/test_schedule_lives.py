"""Lives of a schedule: time passes and jumps, posts change, runs end in any way, people edit, statuses are lost."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from finetune_contract.run_status import Phase
from finetune_contract.schedule_status import Cause
from finetune_operator.schedules.decide import WELL
from finetune_operator.schedules.run_manifest import LABEL_CAUSE
from tests.finetune_operator.schedules.small_place import CONTENT, Place

BAD_ENDS = (Phase.FAILED, Phase.NOT_PROMOTED, Phase.ROLLED_BACK, Phase.CANCELLED)


class Life(RuleBasedStateMachine):
    """One schedule with a site behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Place(
            {"cron": "0 */6 * * *", "onContentChange": CONTENT, "history": {"succeeded": 2, "failed": 2}}
        )
        self.site = 0
        """Version of the site."""
        self.revision = 0
        self.seen: dict[str, int] = {}
        """What of the site each run has read."""
        self.trained: list[int] = []
        """Versions of the site that were trained on, in their order, by runs that nobody asked for by hand."""
        self.live = -1

    @property
    def born(self) -> dict[str, datetime]:
        return self.place.born

    def cause_of(self, name: str) -> Cause:
        return Cause(self.place.made[name].manifest["metadata"]["labels"][LABEL_CAUSE])

    @rule(minutes=st.integers(1, 400))
    def time_passes(self, minutes: int) -> None:
        self.place.later(minutes=minutes)

    @rule(seconds=st.integers(-30, 30))
    def the_clock_is_set(self, seconds: int) -> None:
        self.place.later(seconds=seconds)

    @rule()
    def an_event_comes_twice(self) -> None:
        self.place.look()
        before = dict(self.place.children)
        self.place.look()
        assert set(before) >= set(self.place.children)

    @rule()
    def the_operator_dies_before_it_writes(self) -> None:
        self.place.look(status_is_lost=True)

    @rule()
    def posts_change(self) -> None:
        self.site += 1

    @rule()
    def git_says_so(self) -> None:
        self.revision += 1
        self.place.wishes["revision"] = str(self.revision)
        self.place.look()

    @rule(policy=st.sampled_from(["Forbid", "Replace"]))
    def the_policy_is_edited(self, policy: str) -> None:
        self.place.wishes["concurrencyPolicy"] = policy

    @rule(seconds=st.sampled_from([0, 600]), changes=st.sampled_from([1, 5]))
    def the_trigger_is_edited(self, seconds: int, changes: int) -> None:
        edited = {"debounceSeconds": seconds, "minChangedPosts": changes}
        self.place.wishes["onContentChange"] = CONTENT | edited

    @precondition(lambda self: not self.place.under_way)
    @rule()
    def the_next_look_comes(self) -> None:
        for _ in range(70):
            if self.place.under_way:
                break
            self.place.later(minutes=1)

    @rule()
    def it_is_suspended_or_goes_on(self) -> None:
        self.place.wishes["suspend"] = not self.place.wishes.get("suspend", False)
        self.place.look()

    @precondition(lambda self: bool(self.place.under_way))
    @rule(end=st.sampled_from([Phase.SUCCEEDED, Phase.SUCCEEDED, *BAD_ENDS]), reads=st.booleans())
    def a_run_ends(self, end: Phase, reads: bool) -> None:
        name = self.place.under_way[0]
        child = self.place.children[name]
        compared = self.place.spec_of(name).get("compareWith", {})
        digest = f"d{self.site}"
        changed = abs(self.site - int(str(compared.get("datasetDigest", "d0"))[1:])) * 3
        if child.cancelled:
            self.place.end(name, Phase.CANCELLED)
        elif compared.get("runKey") == f"key of {digest}":
            self.place.end(name, Phase.UNCHANGED, digest=digest, changed=changed)
        elif child.is_check:
            fails = end is Phase.FAILED
            self.place.end(
                name,
                Phase.FAILED if fails else Phase.SUCCEEDED,
                digest="" if fails else digest,
                changed=changed,
            )
        elif end is Phase.SUCCEEDED or reads:
            if child.cause is Cause.CONTENT:
                self.trained.append(self.site)
            self.live = self.site if end is Phase.SUCCEEDED else self.live
            self.place.end(name, end, digest=digest, changed=changed)
        else:
            self.place.end(name, Phase.FAILED)

    @invariant()
    def two_never_train_at_once(self) -> None:
        assert len(self.place.under_way) <= 1

    @invariant()
    def the_history_has_its_bounds(self) -> None:
        ended = [child for child in self.place.children.values() if child.over and not child.is_check]
        assert (
            len([child for child in ended if child.phase in WELL]) <= 2 + 1 + 1
        )  # the live one; one not looked at
        assert len([child for child in ended if child.phase not in WELL]) <= 2 + 1
        assert len([child for child in self.place.children.values() if child.is_check]) <= 2

    @invariant()
    def the_posts_alone_never_train_twice_on_the_same(self) -> None:
        pairs = zip(self.trained, self.trained[1:], strict=False)
        assert all(before != after for before, after in pairs) or len(set(self.trained)) < 2

    @invariant()
    def between_two_runs_for_the_posts_they_are_looked_at_or_an_hour_passes(self) -> None:
        made = [self.born[name] for name in self.place.made if self.cause_of(name) is Cause.CONTENT]
        checks = [self.born[name] for name in self.place.made if self.cause_of(name) is Cause.CHECK]
        for first, second in itertools.pairwise(made):
            looked_at = any(first < check < second for check in checks)
            assert looked_at or second - first >= timedelta(hours=1), (first, second)

    @invariant()
    def git_is_answered_once(self) -> None:
        asked = [name for name in self.place.made if name.startswith("blog-r-")]
        assert len(asked) <= self.revision

    @invariant()
    def what_is_live_is_known(self) -> None:
        live = self.place.status.live
        assert (live.dataset_digest if live else "d-1") == f"d{self.live}"

    def teardown(self) -> None:
        """Left alone, with nobody editing and every run going well, it comes to the newest posts."""
        self.place.wishes["suspend"] = False
        for _ in range(60):
            self.place.later(hours=3)
            if self.place.under_way:
                self.a_run_ends_well()
        assert self.live == self.site, (self.place.status, self.place.children)
        assert self.place.status.revision == self.place.wishes.get("revision", ""), self.place.status

    def a_run_ends_well(self) -> None:
        name = self.place.under_way[0]
        compared = self.place.spec_of(name).get("compareWith", {})
        digest, child = f"d{self.site}", self.place.children[name]
        if child.cancelled:
            self.place.end(name, Phase.CANCELLED)
        elif compared.get("runKey") == f"key of {digest}":
            self.place.end(name, Phase.UNCHANGED, digest=digest, changed=0)
        else:
            self.live = self.live if child.is_check else self.site
            self.place.end(name, digest=digest, changed=3)


Life.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLives = Life.TestCase


@pytest.mark.slow
def test_thousands_of_lives() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    many = settings(Life.TestCase.settings, max_examples=5000)
    run_state_machine_as_test(Life, settings=many)
