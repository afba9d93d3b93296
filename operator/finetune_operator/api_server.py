"""Requests to the Kubernetes API, and its errors as ours. Must not know what is asked, or why."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from finetune_operator.api_group import API_VERSION, FIELD_MANAGER
from finetune_operator.children import version_of
from finetune_operator.errors import (
    AlreadyThere,
    ClusterRefused,
    ClusterUnavailable,
    CrdTooOld,
    FieldConflict,
    NotFound,
    OperatorError,
    StaleObject,
)

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
REQUEST_SECONDS = 30
PAGE_SIZE = 250
UNKNOWN_FIELD = "field not declared in schema"

Json = dict[str, Any]
Items = list[Json]


async def load_access() -> None:
    """Find the API server: the pod's service account, or else the KUBECONFIG.

    Raises:
        ClusterUnavailable: there is neither.
    """
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config()  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config()  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise ClusterUnavailable(f"no access to a cluster: {error}") from error


class ApiServer:
    """The API server, asked by path."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    async def list(self, path: str, query: dict[str, str] | None = None) -> Items:
        """All items, asked for page by page."""
        return [item async for page in self.pages(path, query) for item in page]

    async def pages(self, path: str, query: dict[str, str] | None = None) -> AsyncIterator[Items]:
        """The items of each page, asked for when it is wanted."""
        token = ""
        while True:
            page = {**(query or {}), "limit": str(PAGE_SIZE)} | ({"continue": token} if token else {})
            answer = await self.call("GET", path, page)
            yield answer.get("items") or []
            token = (answer.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    async def apply_status(
        self, path: str, kind: str, name: str, resource_version: str, status: Mapping[str, object]
    ) -> str:
        """Write the whole status of an object of ours; refused as stale when it changed since it was read.

        Returns:
            The object's new version.

        Raises:
            CrdTooOld: the cluster does not know a field of the status.
        """
        body = {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": name, "resourceVersion": resource_version},
            "status": status,
        }
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        try:
            return version_of(await self.call("PATCH", f"{path}/status", query, body, APPLY))
        except ClusterRefused as error:
            if UNKNOWN_FIELD not in str(error):
                raise
            raise CrdTooOld(
                f"the CustomResourceDefinition of {kind} is older than this operator; apply the one of this release "
                f"(the chart with crds.install=true, or its crds/ folder): {error}"
            ) from error

    async def call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        timeout: float = REQUEST_SECONDS,
    ) -> Json:
        text = await self.text(method, path, query, body, content_type, timeout)
        try:
            answer: Json = json.loads(text)
        except ValueError as error:
            raise ClusterUnavailable(f"{method} {path}: the answer is no JSON: {error}") from error
        return answer

    async def text(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        timeout: float = REQUEST_SECONDS,
    ) -> str:
        place = f"{method} {path}"
        resource = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": "application/json, */*", "Content-Type": content_type}
        try:
            request = await self._api.param_serialize(
                method=method,
                resource_path=resource,
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            answer: Any = await self._api.call_api(*request, _request_timeout=timeout)
            data = await answer.read()
        except ApiException as error:
            raise ClusterUnavailable(f"{place}: {error.reason}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterUnavailable(f"{place}: {type(error).__name__} {error}") from error
        text = bytes(data).decode(errors="replace")
        if answer.status >= 400:
            raise translated(answer.status, text, place)
        return text


def translated(status: int, text: str, place: str) -> OperatorError:
    """The API server's error as one of ours."""
    try:
        body = json.loads(text)
    except ValueError:
        body = {}
    message = str(body.get("message") or text[:300]) if isinstance(body, dict) else text[:300]
    words = f"{place}: {status} {message}"
    causes = ((body.get("details") or {}).get("causes") or []) if isinstance(body, dict) else []
    conflict = next((cause for cause in causes if cause.get("reason") == "FieldManagerConflict"), None)
    if status == 409 and conflict is not None:
        said = str(conflict.get("message") or "")
        owner = said.split('"')[1] if said.count('"') >= 2 else "another field manager"
        return FieldConflict(words, owner, str(conflict.get("field") or "a field"))
    if status == 404:
        return NotFound(words)
    if status == 409:
        there = isinstance(body, dict) and body.get("reason") == "AlreadyExists"
        return AlreadyThere(words) if there else StaleObject(words)
    permanent_500 = status == 500 and "failed to create typed patch object" in message
    if status in (400, 403, 405, 413, 422) or permanent_500:
        return ClusterRefused(words)
    return ClusterUnavailable(words)
