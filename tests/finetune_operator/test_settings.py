"""The operator's environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.errors import InvalidSettings
from finetune_operator.settings import read_settings

NEEDED = {"POD_NAMESPACE": "ops", "FINETUNE_TRAINER_IMAGE": "trainer:1"}
NOWHERE = Path("/nowhere")


def test_the_own_namespace_is_watched_when_none_is_named():
    settings = read_settings(NEEDED, NOWHERE)

    assert settings.watch_namespaces == ("ops",)
    assert (settings.http_port, settings.log_format) == (8080, "json")


def test_operators_beside_each_other_hold_leases_of_their_own():
    named = read_settings(NEEDED | {"FINETUNE_LEASE_NAME": "docs-finetune-operator"}, NOWHERE)

    assert named.lease_name == "docs-finetune-operator"
    assert read_settings(NEEDED, NOWHERE).lease_name == "finetune-operator"


def test_namespaces_are_a_list_with_commas():
    settings = read_settings(NEEDED | {"FINETUNE_WATCH_NAMESPACES": "a, b,,a"}, NOWHERE)

    assert settings.watch_namespaces == ("a", "b")


def test_the_service_accounts_namespace_serves_when_none_is_set(tmp_path):
    file = tmp_path / "namespace"
    file.write_text("from-file\n")

    assert read_settings({"FINETUNE_TRAINER_IMAGE": "x"}, file).own_namespace == "from-file"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"POD_NAMESPACE": ""}, "POD_NAMESPACE"),
        ({"FINETUNE_TRAINER_IMAGE": " "}, "FINETUNE_TRAINER_IMAGE"),
        ({"FINETUNE_HTTP_PORT": "http"}, "FINETUNE_HTTP_PORT"),
        ({"FINETUNE_HTTP_PORT": "70000"}, "FINETUNE_HTTP_PORT"),
        ({"FINETUNE_LOG_FORMAT": "xml"}, "FINETUNE_LOG_FORMAT"),
        ({"FINETUNE_LOG_LEVEL": "LOUD"}, "FINETUNE_LOG_LEVEL"),
        ({"FINETUNE_RESYNC_SECONDS": "0"}, "FINETUNE_RESYNC_SECONDS"),
    ],
)
def test_a_wrong_variable_is_named(changes, name):
    with pytest.raises(InvalidSettings, match=name):
        read_settings(NEEDED | changes, NOWHERE)


def test_prices_are_read_by_resource():
    prices = {"FINETUNE_GPU_PRICES": "nvidia.com/gpu=2.49, amd.com/gpu=1", "FINETUNE_CURRENCY": "EUR"}

    settings = read_settings(NEEDED | prices, NOWHERE)

    assert settings.gpu_prices == {"nvidia.com/gpu": 2.49, "amd.com/gpu": 1.0}
    assert settings.currency == "EUR"


@pytest.mark.parametrize(
    "text", ["nvidia.com/gpu", "=2", "nvidia.com/gpu=cheap", "nvidia.com/gpu=-1", "a=nan"]
)
def test_a_price_that_is_no_number_is_named(text):
    with pytest.raises(InvalidSettings, match=r"FINETUNE_GPU_PRICES: found .*nvidia\.com/gpu=2\.49"):
        read_settings(NEEDED | {"FINETUNE_GPU_PRICES": text}, NOWHERE)
