"""Small HTTP requests to the parts: is it up, and JSON in and out. Knows no part."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from devcluster.errors import DevclusterError

# The parts are on this machine: a proxy of the environment must not be asked for them.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(url: str, *, headers: Mapping[str, str] | None = None, expect: int = 200) -> bool:
    """Whether a GET is answered with this status."""
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 (addresses of our own making)
    try:
        with _opener.open(request, timeout=10) as response:
            return bool(response.status == expect)
    except urllib.error.HTTPError as error:
        return error.code == expect
    except (OSError, ValueError):
        return False


def request_json(
    method: str, url: str, *, headers: Mapping[str, str] | None = None, body: object | None = None
) -> Any:
    """Sends and receives JSON.

    Raises:
        DevclusterError: no answer, or a status of 400 and above; the message holds the server's own words.
    """
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data, sent, method=method)  # noqa: S310
    try:
        with _opener.open(request, timeout=60) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:300]
        raise DevclusterError(f"{method} {url} was answered with {error.code}: {said}") from error
    except OSError as error:
        raise DevclusterError(f"{method} {url} gave no answer ({error})") from error


def basic_authorization(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
