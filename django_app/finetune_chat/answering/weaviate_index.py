"""Keyword search in Weaviate. The only file that speaks weaviate-client; its errors end here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from finetune_chat.answering.errors import IndexUnavailable
from finetune_chat.answering.retrieve import FoundDocument
from finetune_chat.settings import WeaviateSettings
from finetune_contract.sections import content_words

if TYPE_CHECKING:
    from weaviate.client import WeaviateAsyncClient

SEARCHED_PROPERTIES = ["postTitle^2", "postContent", "postExcerpt"]
RETURNED_PROPERTIES = ["postTitle", "postUrl", "postContent"]
_WORD = re.compile(r"[^\W_]+")
_INIT_SECONDS = 5
_QUERY_SECONDS = 10
_OTHER_JSON = (AttributeError, LookupError, TypeError, ValueError)
"""What the client falls over when it connects: it takes any JSON for Weaviate's own."""


class NotWeaviate(Exception):
    """What answers says other JSON than Weaviate does."""


class WeaviateIndex:
    """One collection. Connects when it is first asked, and again after an error."""

    def __init__(self, settings: WeaviateSettings) -> None:
        self._settings = settings
        self._client: WeaviateAsyncClient | None = None
        self._connecting = asyncio.Lock()

    async def search(self, text: str, limit: int) -> Sequence[FoundDocument]:
        from weaviate.exceptions import WeaviateBaseError

        try:
            client = await self._connected()
            answer = await client.collections.use(self._settings.collection).query.bm25(
                query=search_words(text),
                query_properties=SEARCHED_PROPERTIES,
                limit=limit,
                return_properties=RETURNED_PROPERTIES,
            )
        except (WeaviateBaseError, httpx.HTTPError, NotWeaviate, OSError, TimeoutError) as error:
            await self.close()
            raise IndexUnavailable(
                f"Weaviate at {self._settings.url} (gRPC port {self._settings.grpc_port}), collection"
                f" {self._settings.collection}: {type(error).__name__}; check address, API key and collection"
            ) from error
        return [
            FoundDocument(
                title=str(found.properties.get("postTitle") or ""),
                url=str(found.properties.get("postUrl") or ""),
                content=str(found.properties.get("postContent") or ""),
            )
            for found in answer.objects
        ]

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _connected(self) -> WeaviateAsyncClient:
        import weaviate
        from weaviate.classes.init import AdditionalConfig, Auth, Timeout

        async with self._connecting:
            if self._client is None:
                address = urlsplit(self._settings.url)
                secure = address.scheme == "https"
                key = self._settings.api_key.get_secret_value()
                client = weaviate.use_async_with_custom(
                    http_host=address.hostname or "localhost",
                    http_port=address.port or (443 if secure else 80),
                    http_secure=secure,
                    grpc_host=address.hostname or "localhost",
                    grpc_port=self._settings.grpc_port,
                    grpc_secure=secure,
                    auth_credentials=Auth.api_key(key) if key else None,
                    additional_config=AdditionalConfig(
                        timeout=Timeout(init=_INIT_SECONDS, query=_QUERY_SECONDS)
                    ),
                )
                try:
                    await client.connect()
                except _OTHER_JSON as error:
                    await client.close()
                    raise NotWeaviate from error
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client


def search_words(text: str) -> str:
    """The words of the question that carry meaning, and their plural or singular: the index holds words only as they
    are written, and rare small words would otherwise outweigh what is asked."""
    words = [word for word in dict.fromkeys(_WORD.findall(text.lower())) if content_words(word)]
    others = [_other_form(word) for word in words if len(word) > 3 and word.isalpha()]
    return " ".join([*words, *(word for word in dict.fromkeys(others) if word not in words)]) or text


def _other_form(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word + "s"
