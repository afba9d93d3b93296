"""Where a model comes from, as an in-toto statement with SLSA's provenance predicate. Pure values.

Formats: in-toto.io/Statement/v1 and slsa.dev/provenance/v1. It holds no time: the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune_contract import VERSION
from finetune_contract.artifacts import FileEntry
from finetune_contract.run_spec import FineTuneRunSpec

PROVENANCE_FILE = "provenance.json"
BUILD_TYPE = "https://finetune-operator.io/build-types/finetune-run/v1"
_BUILDER = "https://finetune-operator.io/trainer"
_DECIDING = ("baseModel", "dataset", "training", "packaging", "evaluation")
"""Parts of the spec that decide what the model is."""
_IMAGE_DIGEST = re.compile(r"@sha256:([0-9a-f]{64})$")
_COMMIT = re.compile(r"^hf://(?P<repository>[^@]+)@(?P<commit>[0-9a-f]{40})$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Inputs:
    """What a model was made of."""

    run_name: str
    run_key: str
    spec: FineTuneRunSpec
    base_uri: str
    base_digest: str
    dataset_uri: str
    dataset_digest: str
    snapshot_sha256: str
    """Of the posts as they were read."""
    adapter_uri: str
    adapter_sha256: str
    """Of the adapter's manifest."""
    image: str = ""
    used: Mapping[str, object] = field(default_factory=dict)
    """Settings of training as they were used, where memory may have made them give way."""


def statement(files: list[FileEntry], inputs: Inputs) -> dict[str, object]:
    """The statement about these files; its wire form is `to_bytes`."""
    wire = inputs.spec.to_wire()
    internal: dict[str, object] = {
        "runKey": inputs.run_key,
        "seed": inputs.spec.training.seed,
        **inputs.used,
    }
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file.path, "digest": {"sha256": file.sha256}} for file in files],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"spec": {name: wire[name] for name in _DECIDING if name in wire}},
                "internalParameters": internal,
                "resolvedDependencies": _dependencies(inputs),
            },
            "runDetails": {
                "builder": {"id": _BUILDER, "version": {"finetune-operator": VERSION}},
                "metadata": {"invocationId": f"{inputs.run_name}/{inputs.run_key}"},
            },
        },
    }


def to_bytes(document: Mapping[str, object]) -> bytes:
    """Canonical JSON."""
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _dependencies(inputs: Inputs) -> list[dict[str, object]]:
    base: dict[str, object] = {
        "name": "base-model",
        "uri": inputs.base_uri,
        "digest": {"sha256": _sha256(inputs.base_digest)},
    }
    if match := _COMMIT.match(inputs.base_uri):
        base["digest"] = {"gitCommit": match["commit"], "sha256": _sha256(inputs.base_digest)}
    found: list[dict[str, object]] = [
        base,
        {"name": "posts", "digest": {"sha256": inputs.snapshot_sha256}},
        {"name": "dataset", "uri": inputs.dataset_uri, "digest": {"sha256": inputs.dataset_digest}},
        {"name": "adapter", "uri": inputs.adapter_uri, "digest": {"sha256": inputs.adapter_sha256}},
    ]
    if inputs.image:
        image: dict[str, object] = {"name": "trainer-image", "uri": inputs.image}
        if match := _IMAGE_DIGEST.search(inputs.image):
            image["digest"] = {"sha256": match[1]}
        found.append(image)
    return [entry for entry in found if entry.get("digest") != {"sha256": ""}]


def _sha256(digest: str) -> str:
    """The digest as it is, or its own sha256 when it is of another form, such as an S3 listing's."""
    return digest if _SHA256.match(digest) else hashlib.sha256(digest.encode()).hexdigest()
