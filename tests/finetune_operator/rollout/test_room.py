"""Memory, disk and time of a target against the model, in numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_contract.run_spec import DeploymentTarget, GgufType
from finetune_contract.run_status import ArtifactStatus, Reason
from finetune_operator.observed import EnvEntry, TemplateContainer
from finetune_operator.rollout.room import MIB, ModelNeed, need_of, shortage, surge_words
from finetune_operator.rollout.target_shape import Mount, TargetShape, Volume
from tests.finetune_operator.samples import MANIFEST, URI, a_deployment

TARGET = DeploymentTarget(name="chat")
NEED = ModelNeed(
    file_bytes=700 * MIB, memory_bytes=1000 * MIB, weights_bytes=700 * MIB, context_bytes=200 * MIB
)


def stored(**sizes: int) -> ArtifactStatus:
    return ArtifactStatus(uri=URI, manifest_sha256=MANIFEST, **sizes)


def cache(volume: Volume) -> TargetShape:
    return TargetShape(volumes=(volume,), mounts=(Mount("model-fetch", "/models", volume.name),))


@pytest.mark.parametrize(
    ("gguf", "weights"), [(GgufType.Q8_0, 700), (GgufType.Q4_K_M, 700), (GgufType.Q4_0, 1400)]
)
def test_a_format_that_is_laid_out_anew_counts_twice(gguf, weights):
    need = need_of(stored(serving_bytes=700 * MIB), gguf, None)

    assert need is not None
    assert need.weights_bytes == weights * MIB
    assert need.memory_bytes == (weights + 100) * MIB


def test_the_context_of_all_slots_counts():
    server = TemplateContainer("model-server", (EnvEntry("MODEL_SERVER_SLOTS", "4"),))
    need = need_of(stored(serving_bytes=MIB, context_bytes_per_token=1024), GgufType.Q8_0, server)

    assert need is not None
    assert need.context_bytes == 4 * 2048 * 1024


def test_the_served_files_share_is_told_from_the_formats_when_the_stage_did_not_say():
    need = need_of(stored(size_bytes=2450 * MIB), GgufType.Q8_0, None)

    assert need is not None
    assert need.file_bytes == pytest.approx(850 * MIB, rel=0.01)


def test_nothing_is_said_of_a_model_of_unknown_size():
    assert need_of(stored(), GgufType.Q8_0, None) is None


@pytest.mark.parametrize(
    ("shape", "reason", "words"),
    [
        (
            TargetShape(memory_limits=(("model-server", 999 * MIB),)),
            Reason.MODEL_TOO_LARGE,
            "may use 999 MiB, the model needs about 1000 MiB (weights 700, context 200, other 100)",
        ),
        (
            cache(Volume("models", limit_bytes=512 * MIB)),
            Reason.CACHE_VOLUME_FULL,
            'emptyDir "models" holds 512 MiB, the model\'s files are 700 MiB',
        ),
        (
            cache(Volume("models", claim="cache", limit_bytes=512 * MIB)),
            Reason.CACHE_VOLUME_FULL,
            'PersistentVolumeClaim "cache" holds 512 MiB',
        ),
        (
            TargetShape(progress_deadline_seconds=45),
            Reason.DEADLINE_TOO_SHORT,
            "progressDeadlineSeconds is 45, a pod may take 50s to load 700 MiB",
        ),
        (
            TargetShape(progress_deadline_seconds=55, min_ready_seconds=10),
            Reason.DEADLINE_TOO_SHORT,
            "set it to at least 60",
        ),
    ],
)
def test_what_is_too_small_is_told_with_the_number_that_is_enough(shape, reason, words):
    short = shortage(TARGET, a_deployment(shape=shape), NEED, 900)

    assert short is not None
    assert short.reason is reason
    assert words in short.message


@pytest.mark.parametrize(
    "shape",
    [
        TargetShape(),
        TargetShape(memory_limits=(("model-server", 1000 * MIB), ("web", MIB))),
        TargetShape(progress_deadline_seconds=2**31 - 1),
        cache(Volume("models", limit_bytes=700 * MIB)),
        cache(Volume("models", claim="cache")),
    ],
)
def test_what_is_enough_or_not_known_is_no_obstacle(shape):
    assert shortage(TARGET, a_deployment(shape=shape), NEED, 900) is None


def test_many_replicas_one_by_one_need_more_time_than_all_at_once():
    many = replace(a_deployment(), replicas=20)

    one_by_one = shortage(TARGET, many, NEED, 900)
    at_once = shortage(TARGET, replace(many, shape=TargetShape(recreates=True)), NEED, 900)

    assert one_by_one is not None
    assert "20 replicas come in 20 waves; make a run with at least 1000" in one_by_one.message
    assert at_once is None


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (TargetShape(max_surge=2, pod_memory_bytes=300 * MIB), "room for 2 more pods, 300 MiB"),
        (TargetShape(recreates=True), "nothing answers while"),
        (TargetShape(max_surge=1, max_unavailable=1), ""),
        (TargetShape(max_surge=0, max_unavailable=1), ""),
    ],
)
def test_the_strategy_is_told_where_it_asks_for_something(shape, words):
    found = surge_words(a_deployment(shape=shape))

    assert words in found
    assert bool(words) == bool(found)
