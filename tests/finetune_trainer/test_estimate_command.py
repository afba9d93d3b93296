"""`finetune estimate`: what is printed, and where the base model's config.json is looked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_contract.artifact_layout import base_model_folder
from finetune_contract.stage_protocol import ExitCode
from finetune_trainer.estimate_command import find_config
from finetune_trainer.laptop import main
from finetune_trainer.training.model_shape import UnknownShape

RUN = Path(__file__).parents[2] / "examples/quickstart/finetunerun.yaml"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIG))
    return file


def estimate(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["estimate", str(RUN), *map(str, arguments)])
    assert isinstance(end.value.code, int)
    return end.value.code


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, int]:
    assert estimate(*arguments, "-o", "json") == ExitCode.OK
    printed: dict[str, int] = json.loads(capsys.readouterr().out)
    return printed


def test_the_table_names_the_parts_their_sum_and_the_largest_micro_batch(
    config: Path, capsys: pytest.CaptureFixture[str]
):
    code = estimate("--config", config, "--gpu-memory", "24Gi")

    shown = capsys.readouterr().out
    assert code == ExitCode.OK
    for part in ("weights", "adapter", "optimizer", "activations", "process", "total"):
        assert part in shown
    assert "8 examples of 384 tokens on cuda" in shown
    assert "it fits 24.0 GiB as it is" in shown
    assert "largest microBatchSize that fits: 8" in shown


@pytest.mark.parametrize(
    ("memory", "length", "told"),
    [
        ("24Gi", 512, "it fits 24.0 GiB as it is"),
        ("16Gi", 1024, "it does not fit 16.0 GiB; the train stage takes spec.training.microBatchSize: 2"),
        ("8Gi", 2048, "spec.training.gradientCheckpointing: true: the same effective batch and result"),
        ("6Gi", 16384, "and will be refused; set spec.training.microBatchSize: 1 and"),
        (
            "3Gi",
            1024,
            "no way to train it fits 3.0 GiB; take a larger GPU, more of them, or a smaller base model",
        ),
    ],
)
def test_what_becomes_of_a_training_that_does_not_fit_is_told(
    memory: str, length: int, told: str, config: Path, capsys: pytest.CaptureFixture[str]
):
    estimate("--config", config, "--gpu-memory", memory, "--set", f"training.sequenceLength={length}")

    assert told in " ".join(capsys.readouterr().out.split())


def test_the_json_names_the_first_way_that_fits(config: Path, capsys: pytest.CaptureFixture[str]):
    longer = ("--config", config, "--set", "training.sequenceLength=2048")
    first = printed_json(capsys, *longer, "--gpu-memory", "8Gi")["firstThatFits"]
    unknown = printed_json(capsys, *longer, "--device", "cuda")["firstThatFits"]

    assert isinstance(first, dict)
    assert first.pop("weightsBytes") > 0
    assert first == {
        "microBatchSize": 2,
        "gradientCheckpointing": True,
        "sequenceLength": 2048,
        "baseDealtOver": 1,
    }
    assert unknown is None


def test_the_json_adds_up_and_more_memory_never_makes_the_micro_batch_smaller(
    config: Path, capsys: pytest.CaptureFixture[str]
):
    found = [
        printed_json(capsys, "--config", config, "--gpu-memory", size)
        for size in ("4Gi", "12Gi", "24Gi", "80Gi")
    ]

    sizes = [entry["largestMicroBatchSize"] for entry in found]
    parts = ("weights", "adapter", "gradients", "optimizer", "activations", "process")
    assert found[0]["totalBytes"] == sum(found[0][f"{part}Bytes"] for part in parts)
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (0, 8)
    assert (found[0]["fits"], found[-1]["fits"]) == (False, True)


def test_a_run_without_a_gpu_is_estimated_on_the_cpu_against_its_own_memory(
    config: Path, capsys: pytest.CaptureFixture[str]
):
    found = printed_json(capsys, "--config", config.parent)

    assert (found["device"], found["limitBytes"]) == ("cpu", 6 * 2**30)


def test_settings_change_the_estimate(config: Path, capsys: pytest.CaptureFixture[str]):
    plain = printed_json(capsys, "--config", config)
    saving = printed_json(capsys, "--config", config, "--set", "training.gradientCheckpointing=true")
    short = printed_json(capsys, "--config", config, "--answer-tokens", "8")

    assert saving["activationsBytes"] < plain["activationsBytes"]
    assert short["activationsBytes"] <= plain["activationsBytes"]


def test_a_base_model_that_is_not_here_is_named_with_the_way_out(capsys: pytest.CaptureFixture[str]):
    assert estimate() == ExitCode.BASE_MODEL_REJECTED

    told = capsys.readouterr().err
    assert told.startswith(
        "spec.baseModel.uri: s3://models/base/smollm2-135m-instruct/ is not on this machine"
    )
    assert "--config" in told


def test_a_run_that_is_not_valid_is_refused(config: Path, capsys: pytest.CaptureFixture[str]):
    assert estimate("--config", config, "--set", "training.microBatchSize=3") == ExitCode.INVALID_RUN

    assert "microBatchSize" in capsys.readouterr().err


def test_a_size_that_is_none_is_refused(config: Path, capsys: pytest.CaptureFixture[str]):
    assert estimate("--config", config, "--gpu-memory", "24 apples") == 2

    assert "'24 apples' is no size; write 24Gi" in capsys.readouterr().err


@pytest.mark.parametrize("revision", ["", "@main", "@" + "c" * 40])
def test_a_hugging_face_model_is_found_in_the_workspace(tmp_path: Path, revision: str):
    folder = tmp_path / "store" / base_model_folder("meta-llama", "Llama-2-7b-hf", "c" * 40)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")

    assert find_config(f"hf://meta-llama/Llama-2-7b-hf{revision}", tmp_path) == folder / "config.json"


def test_another_commit_of_it_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "store" / base_model_folder("meta-llama", "Llama-2-7b-hf", "c" * 40)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)

    with pytest.raises(UnknownShape, match="not on this machine"):
        find_config(f"hf://meta-llama/Llama-2-7b-hf@{'d' * 40}", tmp_path)


def test_a_model_in_the_hugging_face_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: "/cache/config.json")

    assert find_config("hf://a/b", None) == Path("/cache/config.json")


def test_a_folder_is_taken_as_it_is():
    assert find_config("file:///models/my%20model", None) == Path("/models/my model/config.json")


def test_a_base_that_fits_no_single_gpu_is_dealt_out_over_those_of_the_run(
    config: Path, capsys: pytest.CaptureFixture[str]
):
    several = ("--config", config, "--gpu-memory", "3Gi", "--set", "resources.train.gpu.count=2")

    estimate(*several, "--set", "resources.train.gpu.nodes=2")
    told = " ".join(capsys.readouterr().out.split())
    found = printed_json(capsys, *several, "--set", "resources.train.gpu.nodes=2")
    with_room = printed_json(capsys, *several, "--gpu-memory", "80Gi")

    assert "the train stage takes the base model dealt out over 4 GPUs (1." in told
    assert "GiB of weights each)" in told
    assert told.count("the same effective batch and result") == 1
    way: dict[str, int] = found["firstThatFits"]  # type: ignore[assignment]
    assert way["baseDealtOver"] == 4
    assert way["weightsBytes"] < found["weightsBytes"] / 2
    whole: dict[str, int] = with_room["firstThatFits"]  # type: ignore[assignment]
    assert (whole["baseDealtOver"], whole["weightsBytes"]) == (1, with_room["weightsBytes"])


def test_the_largest_micro_batch_is_that_of_a_base_dealt_out_where_no_whole_one_fits(
    config: Path, capsys: pytest.CaptureFixture[str]
):
    small = ("--config", config, "--set", "training.sequenceLength=128")

    alone = printed_json(capsys, *small, "--gpu-memory", "4Gi")
    several = printed_json(capsys, *small, "--gpu-memory", "4Gi", "--set", "resources.train.gpu.count=4")

    way: dict[str, int] = several["firstThatFits"]  # type: ignore[assignment]
    assert alone["largestMicroBatchSize"] == 0
    assert way["baseDealtOver"] == 4
    assert several["largestMicroBatchSize"] == way["microBatchSize"]


def test_of_a_sweep_the_largest_rank_is_estimated_and_named(config: Path, capsys: pytest.CaptureFixture[str]):
    swept = printed_json(capsys, "--config", config, "--set", "training.sweep.rank=[8, 64]")
    plain = printed_json(capsys, "--config", config, "--set", "training.lora.rank=64")

    assert swept == plain
    assert swept["loraRank"] == 64


def test_of_a_sweep_side_by_side_it_says_how_many_gpus_are_taken(
    config: Path, capsys: pytest.CaptureFixture[str]
):
    sweep = [
        "--config",
        config,
        "--set",
        "training.sweep.rank=[8, 64]",
        "--set",
        "training.sweep.parallelism=4",
    ]

    assert printed_json(capsys, *sweep)["podsSideBySide"] == 2
    assert estimate(*sweep) == ExitCode.OK
    assert "2 trials by 2 pods side by side: each takes a GPU of this memory" in capsys.readouterr().out
