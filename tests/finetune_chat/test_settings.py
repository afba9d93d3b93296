from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from finetune_chat.answering.answering import Answering
from finetune_chat.settings import ChatSettings


def test_one_index_is_enough() -> None:
    settings = ChatSettings.from_mapping({"WEAVIATE": {"COLLECTION": "Post", "GRPC_PORT": "50051"}})

    assert settings.weaviate is not None
    assert (settings.weaviate.grpc_port, settings.slots, settings.queue) == (50051, 2, 8)
    assert Answering.from_settings(settings).queue.running == 0


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "set exactly one of WEAVIATE and DOCUMENTS"),
        ({"DOCUMENTS": "x", "WEAVIATE": {"COLLECTION": "Post"}}, "set exactly one of WEAVIATE and DOCUMENTS"),
        ({"DOCUMENTS": "x", "SLOT": 2}, "SLOT: Extra inputs are not permitted"),
        ({"DOCUMENTS": "x", "MIN_SCORE": 2}, "MIN_SCORE: Input should be less than or equal to 1"),
        ({"WEAVIATE": {"COLLECTION": "post"}}, "WEAVIATE.COLLECTION: String should match pattern"),
    ],
)
def test_a_wrong_setting_is_named(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        ChatSettings.from_mapping(mapping)

    assert message in str(caught.value)


def test_the_api_key_does_not_show() -> None:
    settings = ChatSettings.from_mapping({"WEAVIATE": {"COLLECTION": "Post", "API_KEY": "very-secret"}})

    assert "very-secret" not in repr(settings)


def test_the_newline_at_the_end_of_a_file_is_no_part_of_a_setting() -> None:
    settings = ChatSettings.from_mapping(
        {
            "WEAVIATE": {"URL": "http://weaviate:8080\n", "COLLECTION": "Post", "API_KEY": "very-secret\n"},
            "MODEL_SERVER_URL": "http://model:8081\n",
        }
    )

    assert settings.weaviate is not None
    assert settings.weaviate.api_key.get_secret_value() == "very-secret"
    assert (settings.weaviate.url, settings.model_server_url) == ("http://weaviate:8080", "http://model:8081")


@pytest.mark.parametrize("key", ["very-secret\nvery-secret", "very-secret-ä"])
def test_an_api_key_that_no_header_can_carry_is_named_and_not_shown(key: str) -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r"WEAVIATE.API_KEY: .*the key holds a line break"
    ) as caught:
        ChatSettings.from_mapping({"WEAVIATE": {"COLLECTION": "Post", "API_KEY": key}})

    assert "very-secret" not in str(caught.value)
