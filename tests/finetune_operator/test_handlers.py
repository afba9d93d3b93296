"""kopf is set up to write nothing and to look nowhere else."""

from __future__ import annotations

from finetune_operator import handlers
from finetune_operator.schedules.watched import WatchedSchedules
from tests.finetune_operator.small_queue import Keys, watched


def test_kopf_posts_no_events_and_scans_no_cluster():
    settings = handlers.settings()

    assert settings.posting.enabled is False
    assert settings.scanning.disabled is True
    assert settings.peering.standalone is True


def test_only_watching_handlers_are_registered_so_kopf_needs_no_finalizer_and_no_annotation():
    registry = handlers.registry(watched(), WatchedSchedules(Keys()))

    assert len(registry._watching.get_all_handlers()) == 5
    assert registry._changing.get_all_handlers() == []
    assert registry._spawning.get_all_handlers() == []


def test_only_jobs_and_pods_of_runs_are_asked_for_and_first_lists_come_in_pieces():
    watching = handlers.settings().watching

    assert {
        selector.plural or selector.any_name: label for selector, label in watching.label_selectors.items()
    } == {
        "jobs": "finetune-operator.io/run",
        "pods": "finetune-operator.io/run",
    }
    assert watching.chunk_size == 250
    assert handlers.settings().queueing.idle_timeout < 1, (
        "kopf holds each event of the first list for so long"
    )
