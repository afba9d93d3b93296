"""The statement has what in-toto and SLSA ask for, and names every input by digest."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlparse

from finetune_contract.artifacts import FileEntry
from finetune_trainer.packaging.provenance import Inputs, statement, to_bytes
from tests.finetune_trainer.training.tiny_model import spec_for

FILES = [FileEntry(path="model.gguf", size=3, sha256="a" * 64)]
COMMIT = "c" * 40
DIGESTS = {"sha256": 64, "gitCommit": 40}


def inputs(**changes: object) -> Inputs:
    values: dict[str, object] = {
        "run_name": "blog",
        "run_key": "k" * 64,
        "spec": spec_for(Path("/models/base")),
        "base_uri": f"hf://owner/name@{COMMIT}",
        "base_digest": "b" * 64,
        "dataset_uri": "s3://models/datasets/d",
        "dataset_digest": "d" * 64,
        "snapshot_sha256": "e" * 64,
        "adapter_uri": "s3://models/runs/k/adapter",
        "adapter_sha256": "f" * 64,
        "image": f"registry/trainer@sha256:{'1' * 64}",
        **changes,
    }
    return Inputs(**values)  # type: ignore[arg-type]


def is_type_uri(text: object) -> bool:
    """in-toto's TypeURI: a URI with a scheme and an authority or path."""
    return isinstance(text, str) and bool(
        urlparse(text).scheme and (urlparse(text).netloc or urlparse(text).path)
    )


def check_resource(descriptor: dict[str, object]) -> None:
    """in-toto's ResourceDescriptor: one of uri, digest and content at least; digests are lower-case hex."""
    assert descriptor.keys() & {"uri", "digest", "content"}
    digest = descriptor.get("digest", {})
    assert isinstance(digest, dict)
    for algorithm, value in digest.items():
        assert len(value) == DIGESTS[algorithm]
        assert set(value) <= set("0123456789abcdef")


def test_the_statement_has_every_field_that_the_specifications_require():
    document = json.loads(to_bytes(statement(FILES, inputs(run_key="0" * 64, dataset_digest="9" * 64))))

    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert document["predicateType"] == "https://slsa.dev/provenance/v1"
    assert document["subject"]
    for subject in document["subject"]:
        assert subject["name"]
        assert subject["digest"]
        check_resource(subject)
    build, details = document["predicate"]["buildDefinition"], document["predicate"]["runDetails"]
    assert is_type_uri(build["buildType"])
    assert isinstance(build["externalParameters"], dict)
    assert is_type_uri(details["builder"]["id"])
    assert all(isinstance(version, str) for version in details["builder"]["version"].values())
    assert isinstance(details["metadata"]["invocationId"], str)
    dependencies = [d for d in build["resolvedDependencies"] if d["name"] != "dataset"]
    for dependency in dependencies:
        check_resource(dependency)


def test_posts_commit_dataset_adapter_and_image_are_named_by_digest():
    document = json.loads(to_bytes(statement(FILES, inputs())))

    found = {d["name"]: d for d in document["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert found["base-model"]["digest"] == {"gitCommit": COMMIT, "sha256": "b" * 64}
    assert found["posts"]["digest"] == {"sha256": "e" * 64}
    assert found["dataset"]["digest"] == {"sha256": "d" * 64}
    assert found["adapter"]["digest"] == {"sha256": "f" * 64}
    assert found["trainer-image"]["digest"] == {"sha256": "1" * 64}
    assert document["subject"] == [{"name": "model.gguf", "digest": {"sha256": "a" * 64}}]


def test_the_spec_is_there_as_far_as_it_decides_the_model_and_without_where_it_runs():
    document = json.loads(to_bytes(statement(FILES, inputs())))

    spec = document["predicate"]["buildDefinition"]["externalParameters"]["spec"]
    assert spec.keys() == {"baseModel", "dataset", "training", "packaging", "evaluation"}
    assert spec["training"]["lora"]["rank"] == 4


def test_what_is_not_known_is_left_out():
    document = json.loads(
        to_bytes(statement(FILES, inputs(image="", snapshot_sha256="", base_uri="s3://b/m")))
    )

    found = {d["name"]: d for d in document["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert found.keys() == {"base-model", "dataset", "adapter"}
    assert found["base-model"]["digest"] == {"sha256": "b" * 64}


def test_the_same_inputs_give_the_same_bytes():
    assert to_bytes(statement(FILES, inputs())) == to_bytes(statement(FILES, inputs()))
