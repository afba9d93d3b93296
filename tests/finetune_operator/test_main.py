"""The parts of the process as they are put together."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from finetune_operator.__main__ import Process
from finetune_operator.settings import read_settings
from tests.finetune_operator.full_metrics import full_metrics


class Nobody:
    """A cluster that is not asked yet."""

    def __getattr__(self, name: str) -> Any:
        return None


def test_a_process_that_has_only_begun_shows_every_metric_and_does_not_lead():
    settings = read_settings({"POD_NAMESPACE": "ops", "FINETUNE_TRAINER_IMAGE": "trainer:1"})
    process = Process(settings, Nobody())

    families = {
        family.name: family for family in text_string_to_metric_families(process._metrics.text().decode())
    }

    wanted = {family.name for family in text_string_to_metric_families(full_metrics().text().decode())}
    assert set(families) == wanted
    assert families["finetune_operator_leader"].samples[0].value == 0
    assert families["finetune_operator_lease_age_seconds"].samples[0].value < 60
