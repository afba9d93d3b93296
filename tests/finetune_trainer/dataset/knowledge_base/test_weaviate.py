"""The nine properties, and errors in words. A real server is asked in tests/together/test_dataset.py."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from weaviate.classes.config import Tokenization

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import SecretKeyRef, WeaviateSpec
from finetune_trainer.dataset.knowledge_base.weaviate import (
    PROPERTIES,
    WeaviateKnowledgeBase,
    from_properties,
    schema_differences,
    to_properties,
)
from finetune_trainer.errors import KnowledgeBaseRejected, KnowledgeBaseUnavailable

POST = Document(
    source="",
    post_id="http://site/?p=1",
    post_title="Opening hours",
    post_excerpt="",
    post_content="## Summer\n\nFrom nine to five.",
    post_date="2025-03-04T05:06:07Z",
    post_author="Ada",
    post_categories=["Documentation", "Visiting"],
    post_tags=["hours"],
    post_url="http://site/hours/",
)


def test_there_are_nine_properties_and_a_document_fills_each():
    assert [entry.name for entry in PROPERTIES] == list(to_properties(POST))
    assert len(PROPERTIES) == 9


def test_a_document_comes_back_as_it_went():
    assert from_properties(to_properties(POST)) == POST


def test_a_date_comes_back_in_utc_whatever_zone_the_server_speaks():
    properties = to_properties(POST) | {"postDate": datetime.fromisoformat("2025-03-04T07:06:07+02:00")}

    assert from_properties(properties).post_date == POST.post_date


def test_empty_values_come_back_empty():
    properties = to_properties(POST) | {"postTags": None, "postExcerpt": None}

    assert from_properties(properties) == POST.model_copy(update={"post_tags": []})


def test_the_same_schema_has_no_differences():
    assert schema_differences(PROPERTIES) == []


def test_another_schema_is_told_property_by_property():
    title = replace(PROPERTIES[1], name="title")
    url = replace(PROPERTIES[8], tokenization=Tokenization.WORD)

    differences = schema_differences([PROPERTIES[0], title, *PROPERTIES[2:8], url])

    assert differences == [
        "postTitle is missing",
        "title is not one of the nine",
        "postUrl: tokenization is word instead of field",
    ]


def test_a_secret_without_its_key_is_refused_before_connecting():
    spec = WeaviateSpec(
        url="http://127.0.0.1:1", api_key_secret_ref=SecretKeyRef(name="weaviate", key="api-key")
    )

    with pytest.raises(
        KnowledgeBaseRejected, match=r"apiKeySecretRef: the Secret weaviate has no value under api-key"
    ):
        WeaviateKnowledgeBase(spec, {}).check()


def test_a_server_that_is_down_is_unavailable_and_named(unused_port):
    spec = WeaviateSpec(url=f"http://127.0.0.1:{unused_port}")

    with pytest.raises(
        KnowledgeBaseUnavailable, match=rf"weaviate.url: http://127.0.0.1:{unused_port} does not answer"
    ):
        WeaviateKnowledgeBase(spec, {}).check()


def test_a_refused_key_is_told_without_the_key(httpserver):
    httpserver.expect_request("/v1/meta").respond_with_json(
        {"error": [{"message": "unauthorized"}]}, status=401
    )
    spec = WeaviateSpec(url=httpserver.url_for("").rstrip("/"))

    with pytest.raises(KnowledgeBaseRejected, match="refuses the key") as caught:
        WeaviateKnowledgeBase(spec, {"WEAVIATE_API_KEY": "top-secret"}).check()

    assert "top-secret" not in str(caught.value)


def test_a_wrong_grpc_port_is_named(httpserver, unused_port, monkeypatch):
    monkeypatch.setattr("finetune_trainer.dataset.knowledge_base.weaviate.CONNECT_SECONDS", 0.2)
    httpserver.expect_request("/v1/meta").respond_with_json({"version": "1.35.2"})
    spec = WeaviateSpec(url=httpserver.url_for("").rstrip("/"), grpc_port=unused_port)

    with pytest.raises(
        KnowledgeBaseUnavailable, match=rf"grpcPort: nothing speaks gRPC at \w+:{unused_port};"
    ):
        WeaviateKnowledgeBase(spec, {}).check()


def test_one_port_for_rest_and_grpc_is_refused():
    spec = WeaviateSpec(url="http://127.0.0.1:8080", grpc_port=8080)

    with pytest.raises(KnowledgeBaseRejected, match=r"grpcPort: 8080 is the REST port"):
        WeaviateKnowledgeBase(spec, {}).check()
