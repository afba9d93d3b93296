"""The operator's own settings: the environment, read once and checked. Must not know what they are used for."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune_operator.api_group import ALL_NAMESPACES, DEFAULT_LEASE_NAME
from finetune_operator.errors import InvalidSettings

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FORMATS = ("text", "json")


@dataclass(frozen=True)
class Settings:
    """What the chart's values become."""

    watch_namespaces: tuple[str, ...]
    """FINETUNE_WATCH_NAMESPACES: comma list; `*` alone means all; empty means the operator's own namespace."""
    own_namespace: str
    """POD_NAMESPACE: where the Lease lies."""
    identity: str
    """POD_NAME: the name under which the Lease is held."""
    trainer_image: str
    """FINETUNE_TRAINER_IMAGE: image of the stages of runs that name none."""
    lease_name: str = DEFAULT_LEASE_NAME
    """FINETUNE_LEASE_NAME: replicas of one name take turns; operators for different namespaces have different ones."""
    resync_seconds: float = 60.0
    """FINETUNE_RESYNC_SECONDS: everything is listed this often, to find what no event told."""
    concurrency: int = 16
    """FINETUNE_CONCURRENCY: runs that are worked on at once."""
    log_level: str = "INFO"
    """FINETUNE_LOG_LEVEL."""
    log_format: str = "json"
    """FINETUNE_LOG_FORMAT: json or text."""
    http_port: int = 8080
    """FINETUNE_HTTP_PORT: /livez, /readyz and /metrics; 0 switches them off."""
    gpu_prices: Mapping[str, float] = field(default_factory=dict)
    """FINETUNE_GPU_PRICES: price of an hour of one GPU by extended resource, such as `nvidia.com/gpu=2.49`; a comma
    list."""
    currency: str = ""
    """FINETUNE_CURRENCY: of the prices, such as EUR."""


def read_settings(
    environment: Mapping[str, str] | None = None, namespace_file: Path = NAMESPACE_FILE
) -> Settings:
    """Settings from the environment.

    Raises:
        InvalidSettings: a variable is missing or malformed; the message names it.
    """
    env = os.environ if environment is None else environment
    own_namespace = env.get("POD_NAMESPACE", "").strip() or _namespace_in(namespace_file)
    if not own_namespace:
        raise InvalidSettings("POD_NAMESPACE: is not set; set it to the namespace that the operator runs in")
    trainer_image = env.get("FINETUNE_TRAINER_IMAGE", "").strip()
    if not trainer_image:
        raise InvalidSettings("FINETUNE_TRAINER_IMAGE: is not set; set it to the image of the stages")
    listed = tuple(
        name.strip() for name in env.get("FINETUNE_WATCH_NAMESPACES", "").split(",") if name.strip()
    )
    if ALL_NAMESPACES in listed and len(set(listed)) > 1:
        raise InvalidSettings(
            "FINETUNE_WATCH_NAMESPACES: names * and others; write * alone for all namespaces, or names only"
        )
    return Settings(
        watch_namespaces=tuple(dict.fromkeys(listed)) or (own_namespace,),
        own_namespace=own_namespace,
        identity=env.get("POD_NAME", "").strip() or f"{socket.gethostname()}-{os.getpid()}",
        trainer_image=trainer_image,
        lease_name=env.get("FINETUNE_LEASE_NAME", "").strip() or DEFAULT_LEASE_NAME,
        resync_seconds=float(_number(env, "FINETUNE_RESYNC_SECONDS", 60, 5, 3600)),
        concurrency=_number(env, "FINETUNE_CONCURRENCY", 16, 1, 256),
        log_level=_choice(env, "FINETUNE_LOG_LEVEL", "INFO", LOG_LEVELS),
        log_format=_choice(env, "FINETUNE_LOG_FORMAT", "json", LOG_FORMATS),
        http_port=_number(env, "FINETUNE_HTTP_PORT", 8080, 0, 65535),
        gpu_prices=_prices(env, "FINETUNE_GPU_PRICES"),
        currency=env.get("FINETUNE_CURRENCY", "").strip(),
    )


def _namespace_in(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(env: Mapping[str, str], name: str, default: int, lowest: int, highest: int) -> int:
    text = env.get(name, "").strip() or str(default)
    if not text.isdecimal() or not lowest <= int(text) <= highest:
        raise InvalidSettings(f"{name}: found {text!r}; choose a whole number from {lowest} to {highest}")
    return int(text)


def _prices(env: Mapping[str, str], name: str) -> dict[str, float]:
    prices: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in env.get(name, "").split(","))):
        resource, equals, price = entry.partition("=")
        try:
            amount = float(price) if resource and equals else -1.0
        except ValueError:
            amount = -1.0
        if not 0 <= amount < math.inf:
            raise InvalidSettings(f"{name}: found {entry!r}; write pairs such as nvidia.com/gpu=2.49")
        prices[resource.strip()] = amount
    return prices


def _choice(env: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    text = env.get(name, "").strip() or default
    found = next((choice for choice in choices if choice.lower() == text.lower()), None)
    if found is None:
        raise InvalidSettings(f"{name}: found {text!r}; choose {', '.join(choices)}")
    return found
