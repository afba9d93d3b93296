"""Bodies from the API server, small enough to be remembered by the thousand. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

QUICKEST = 1
"""Of zlib's levels: the others save little more."""


def pack_json(value: object) -> bytes:
    """JSON, compressed."""
    return zlib.compress(json.dumps(value).encode(), QUICKEST)


def unpack_json(packed: bytes) -> Any:
    """What was packed."""
    return json.loads(zlib.decompress(packed))


def told_metadata(body: Mapping[str, Any]) -> dict[str, Any]:
    """An object's metadata without the list of who manages which field, which is often the larger part."""
    return {name: part for name, part in body["metadata"].items() if name != "managedFields"}
