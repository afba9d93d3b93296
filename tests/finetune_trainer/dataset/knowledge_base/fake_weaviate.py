"""A Weaviate in memory that speaks the wire protocol, so that the real client runs against it. It can be told to fail.

Left out: searches, inverted indexes, and vectors by modules (a real server is asked in tests/together).
"""

from __future__ import annotations

import json
import re
import struct
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from pytest_httpserver import HTTPServer
from weaviate.proto.v1 import (
    aggregate_pb2,
    batch_delete_pb2,
    batch_pb2,
    properties_pb2,
    search_get_pb2,
    weaviate_pb2_grpc,
)
from werkzeug import Request, Response

DEFAULTS: dict[str, Any] = {
    "invertedIndexConfig": {
        "bm25": {"b": 0.75, "k1": 1.2},
        "cleanupIntervalSeconds": 60,
        "stopwords": {"preset": "en", "additions": None, "removals": None},
    },
    "multiTenancyConfig": {"enabled": False},
    "replicationConfig": {"factor": 1},
    "shardingConfig": {
        "virtualPerPhysical": 128,
        "desiredCount": 1,
        "actualCount": 1,
        "desiredVirtualCount": 128,
        "actualVirtualCount": 128,
        "key": "_id",
        "strategy": "hash",
        "function": "murmur3",
    },
}
HNSW: dict[str, Any] = {
    "cleanupIntervalSeconds": 300,
    "distance": "cosine",
    "dynamicEfMin": 100,
    "dynamicEfMax": 500,
    "dynamicEfFactor": 8,
    "ef": -1,
    "efConstruction": 128,
    "flatSearchCutoff": 40000,
    "maxConnections": 32,
    "skip": False,
    "vectorCacheMaxObjects": 1,
}


class FakeWeaviate(weaviate_pb2_grpc.WeaviateServicer):  # type: ignore[misc]
    """Collections with their objects; `refuse` and `before_batch` make it fail."""

    def __init__(self, rest: HTTPServer) -> None:
        self.schemas: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, dict[str, dict[str, Any]]] = {}
        self.vectors: dict[str, dict[str, list[float]]] = {}
        """By id of an object and name of a vector."""
        self.modules: dict[str, Any] = {}
        self.batches: list[int] = []
        """Sizes of the batches that came."""
        self.refuse: Callable[[dict[str, Any]], str] = lambda properties: ""
        """Why an object is not stored; empty stores it."""
        self.forget: Callable[[dict[str, Any]], bool] = lambda properties: False
        """Say that it is stored, and do not."""
        self.before_batch: Callable[[], None] = lambda: None
        self.url = rest.url_for("").rstrip("/")
        rest.expect_request(re.compile("/v1/.*")).respond_with_handler(self._rest)
        self._lock = threading.Lock()
        self._is_stopped = False
        self._grpc_server = grpc.server(ThreadPoolExecutor(2))
        weaviate_pb2_grpc.add_WeaviateServicer_to_server(self, self._grpc_server)
        self.grpc_port = self._grpc_server.add_insecure_port("127.0.0.1:0")
        self._grpc_server.start()

    def stop(self) -> None:
        """End at once, as a killed process does: a batch that is under way is not stored."""
        self._is_stopped = True
        self._grpc_server.stop(grace=None)

    def restarted(self, rest: HTTPServer) -> FakeWeaviate:
        """A server on another port that holds what this one held."""
        rest.clear()
        again = FakeWeaviate(rest)
        again.schemas, again.objects, again.vectors = self.schemas, self.objects, self.vectors
        return again

    def add(self, collection: str, identity: str, properties: dict[str, Any]) -> None:
        self.objects.setdefault(collection, {})[identity] = properties

    def add_collection(self, name: str, **types: str) -> None:
        """A collection of others, with properties by name and type."""
        self._create({"class": name, "properties": [_property(*entry) for entry in types.items()]})

    def _rest(self, request: Request) -> Response:
        name = request.path.removeprefix("/v1/schema").strip("/")
        if request.path == "/v1/meta":
            return _json({"version": "1.35.2", "grpcMaxMessageSize": 10_485_760, "modules": self.modules})
        if request.path.startswith("/v1/schema") and request.method == "POST":
            return _json(self._create(json.loads(request.get_data())))
        if request.path.startswith("/v1/schema") and not name:
            return _json({"classes": list(self.schemas.values())})
        if request.path.startswith("/v1/schema") and name in self.schemas:
            return _json(self.schemas[name])
        return _json({"error": [{"message": "not found"}]}, 404)

    def _create(self, given: dict[str, Any]) -> dict[str, Any]:
        schema = DEFAULTS | given
        for vector in schema.get("vectorConfig", {}).values():
            vector |= {"vectorIndexType": "hnsw", "vectorIndexConfig": HNSW}
        if "vectorConfig" not in schema:
            schema |= {"vectorizer": "none", "vectorIndexType": "hnsw", "vectorIndexConfig": HNSW}
        self.schemas[given["class"]] = schema
        self.objects.setdefault(given["class"], {})
        return schema

    def BatchObjects(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's names
        self.before_batch()
        if self._is_stopped:
            context.abort(grpc.StatusCode.UNAVAILABLE, "killed")
        self.batches.append(len(request.objects))
        errors = []
        with self._lock:
            for index, entry in enumerate(request.objects):
                properties = _from_batch(entry.properties)
                if fact := self.refuse(properties):
                    errors.append(batch_pb2.BatchObjectsReply.BatchError(index=index, error=fact))
                elif not self.forget(properties):
                    self.add(entry.collection, entry.uuid, properties)
                    self.vectors[entry.uuid] = {
                        vector.name: _floats(vector.vector_bytes) for vector in entry.vectors
                    }
        return batch_pb2.BatchObjectsReply(errors=errors)

    def BatchDelete(self, request: Any, context: Any) -> Any:  # noqa: N802
        kept = self.objects[request.collection]
        gone = [kept.pop(identity, None) for identity in request.filters.value_text_array.values]
        found = sum(entry is not None for entry in gone)
        return batch_delete_pb2.BatchDeleteReply(matches=found, successful=found, failed=0)

    def Search(self, request: Any, context: Any) -> Any:  # noqa: N802
        kept = self.objects[request.collection]
        types = {
            entry["name"]: entry["dataType"][0] for entry in self.schemas[request.collection]["properties"]
        }
        page = [identity for identity in sorted(kept) if identity > request.after][: request.limit]
        results = []
        for identity in page:
            fields = {
                name: _value(types[name], value)
                for name, value in kept[identity].items()
                if value or value == 0
            }
            results.append(
                search_get_pb2.SearchResult(
                    properties=search_get_pb2.PropertiesResult(
                        non_ref_props=properties_pb2.Properties(fields=fields)
                    ),
                    metadata=search_get_pb2.MetadataResult(id_as_bytes=uuid.UUID(identity).bytes),
                )
            )
        return search_get_pb2.SearchReply(results=results)

    def Aggregate(self, request: Any, context: Any) -> Any:  # noqa: N802
        count = len(self.objects[request.collection])
        return aggregate_pb2.AggregateReply(
            single_result=aggregate_pb2.AggregateReply.Single(objects_count=count)
        )


def _from_batch(given: Any) -> dict[str, Any]:
    properties: dict[str, Any] = MessageToDict(given.non_ref_properties)
    properties |= {entry.prop_name: list(entry.values) for entry in given.text_array_properties}
    return properties | {name: [] for name in given.empty_list_props}


def _value(kind: str, value: Any) -> Any:
    if kind == "date":
        return properties_pb2.Value(date_value=value)
    if kind == "int":
        return properties_pb2.Value(int_value=value)
    if kind == "text[]":
        texts = properties_pb2.TextValues(values=value)
        return properties_pb2.Value(list_value=properties_pb2.ListValue(text_values=texts))
    return properties_pb2.Value(text_value=value)


def _property(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "dataType": [kind], "indexFilterable": True, "indexSearchable": kind == "text"}


def _floats(content: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(content) // 4}f", content))


def _json(body: object, status: int = 200) -> Response:
    return Response(json.dumps(body), status, mimetype="application/json")
