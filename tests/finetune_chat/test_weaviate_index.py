from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pytest_httpserver import HTTPServer

from finetune_chat.answering.errors import IndexUnavailable
from finetune_chat.answering.weaviate_index import WeaviateIndex
from finetune_chat.settings import WeaviateSettings


class FakeClient:
    """As much of a connected client as a search needs."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: dict[str, Any] = {}
        self.closed = False
        self.collections = SimpleNamespace(
            use=lambda name: SimpleNamespace(query=SimpleNamespace(bm25=self.bm25))
        )

    async def bm25(self, **asked: Any) -> SimpleNamespace:
        self.asked = asked
        if self.error is not None:
            raise self.error
        page = {"postTitle": "Bread", "postUrl": "https://mill.example/bread/", "postContent": None}
        return SimpleNamespace(objects=[SimpleNamespace(properties=page)])

    async def close(self) -> None:
        self.closed = True


def index_with(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> WeaviateIndex:
    index = WeaviateIndex(WeaviateSettings.model_validate({"COLLECTION": "Post", "API_KEY": "very-secret"}))
    monkeypatch.setattr(index, "_client", client)
    return index


async def test_titles_weigh_double_and_missing_texts_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient()

    found = await index_with(client, monkeypatch).search("Which bread?", 5)

    assert client.asked["query_properties"] == ["postTitle^2", "postContent", "postExcerpt"]
    assert (client.asked["query"], client.asked["limit"]) == ("bread breads", 5)
    assert [(page.title, page.content) for page in found] == [("Bread", "")]


async def test_an_error_names_address_and_collection_and_the_next_search_connects_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = FakeClient(error=TimeoutError())
    index = index_with(client, monkeypatch)

    with pytest.raises(IndexUnavailable) as caught:
        await index.search("Which bread?", 5)

    assert "http://localhost:8080 (gRPC port 50051), collection Post: TimeoutError" in str(caught.value)
    assert "very-secret" not in str(caught.value)
    assert client.closed
    assert vars(index)["_client"] is None


@pytest.mark.parametrize("answer", [{"data": []}, [], {"version": 7}])
async def test_a_server_with_other_json_is_an_index_that_does_not_answer(
    httpserver: HTTPServer, answer: object
) -> None:
    httpserver.expect_request("/v1/meta").respond_with_json(answer)
    settings = WeaviateSettings.model_validate(
        {"URL": httpserver.url_for("").rstrip("/"), "COLLECTION": "Post", "API_KEY": "very-secret"}
    )

    with pytest.raises(IndexUnavailable, match="NotWeaviate; check address"):
        await WeaviateIndex(settings).search("Which bread?", 5)


async def test_a_connection_that_hangs_is_an_index_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(IndexUnavailable, match="ConnectTimeout; check address"):
        await index_with(FakeClient(error=httpx.ConnectTimeout("no route")), monkeypatch).search("bread", 5)
