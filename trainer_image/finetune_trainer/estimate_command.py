"""`finetune estimate RUN.yaml`: what a training will need, from the base model's config.json alone.

Loads no weight and needs no GPU. Must not know torch.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.table import Table

from finetune_contract.artifact_layout import base_model_folder
from finetune_contract.run_document import InvalidRunDocument
from finetune_contract.run_spec import ComputeDtype, FineTuneRunSpec, TrainingSpec
from finetune_contract.stage_protocol import ExitCode
from finetune_contract.sweep_trials import pods_side_by_side, trials_of
from finetune_trainer.run_settings import load_run
from finetune_trainer.training.memory_estimate import (
    MemoryEstimate,
    Numbers,
    RowSize,
    changes_in_words,
    estimate_memory,
    first_that_fits,
    first_way_that_fits,
    micro_batch_sizes,
    unshared_row,
    weight_bytes,
)
from finetune_trainer.training.model_shape import UnknownShape, read_model_shape

ANSWER_SHARE = 4
"""Without a word about it, a quarter of an example is taken for its answer."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GIB = 2**30
_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_UNITS |= {f"{name}i": 2.0 ** (10 * power) for power, name in enumerate("KMGT", 1)}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")


def add_estimate_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put `estimate` beside the other commands."""
    parser = commands.add_parser(
        "estimate",
        help="memory that training will need, without loading the model",
        description="Memory at the peak of a training step, from the base model's config.json: examples of full "
        "length that have nothing in common, the most that they can take. The base model is looked for in its "
        "folder, in the workspace and in the Hugging Face cache; nothing is downloaded.",
        epilog="examples:\n"
        "  finetune estimate RUN.yaml --gpu-memory 24Gi\n"
        "  finetune estimate RUN.yaml --gpu-memory 80Gi --set training.microBatchSize=16 -o json\n"
        "  finetune estimate RUN.yaml --device cpu --config smollm2/config.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="YAML of the FineTuneRun")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="another value for a field below spec",
    )
    parser.add_argument(
        "--config", type=Path, help="config.json of the base model, or the folder that holds it"
    )
    parser.add_argument("--workspace", type=Path, help="where `finetune run` left base models")
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        help="where training will run (default: cpu when spec.resources.train asks for no GPU and --gpu-memory is "
        "not given)",
    )
    parser.add_argument("--gpu-memory", type=_quantity, metavar="24Gi", help="memory of the GPU")
    parser.add_argument(
        "--answer-tokens",
        type=int,
        metavar="N",
        help="tokens of the longest answers (default: a quarter of spec.training.sequenceLength)",
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="json for programs")


def run_estimate_command(arguments: argparse.Namespace) -> int:
    """Print the estimate; the exit code says that there was one, not that it fits."""
    try:
        _, spec = load_run(arguments.file, arguments.set)
        config = arguments.config or find_config(spec.base_model.uri, arguments.workspace)
        shape = read_model_shape(config / "config.json" if config.is_dir() else config)
    except InvalidRunDocument as error:
        print(error, file=sys.stderr)  # noqa: T201
        return ExitCode.INVALID_RUN
    except UnknownShape as error:
        print(f"spec.baseModel.uri: {error}", file=sys.stderr)  # noqa: T201
        return ExitCode.BASE_MODEL_REJECTED
    on_gpu = _device(arguments, spec) == "cuda"
    numbers = Numbers("cuda" if on_gpu else "cpu", _value_bytes(spec.training, on_gpu))
    answers = arguments.answer_tokens or spec.training.sequence_length // ANSWER_SHARE

    def row_of(training: TrainingSpec) -> RowSize:
        return unshared_row(training.micro_batch_size, training.sequence_length, answers)

    training = max(trials_of(spec.training), key=lambda trial: trial.lora.rank)  # of a sweep the largest
    estimate = estimate_memory(shape, training, numbers, row_of(training))
    processes = _processes(spec) if on_gpu else 1
    limit: int | None = arguments.gpu_memory if on_gpu else _quantity(spec.resources.train.memory)
    sizes = (training.model_copy(update={"micro_batch_size": size}) for size in micro_batch_sizes(training))
    verdict = None
    if limit is not None:
        room = limit - estimate.process
        fitting, pieces = first_way_that_fits(training, shape, numbers, row_of, room, processes)
        largest = first_that_fits(sizes, shape, numbers, row_of, room, pieces)
        weights = weight_bytes(shape, training, numbers, pieces)
        verdict = _Verdict(limit, largest.micro_batch_size if largest else 0, fitting, pieces, weights)
    pods = pods_side_by_side(spec.training)
    if arguments.output == "json":
        print(_to_json(estimate, training, numbers, verdict, pods))  # noqa: T201
    else:
        _print_table(estimate, training, numbers, answers, verdict)
        if pods > 1:
            trials = len(trials_of(spec.training))
            print(f"{trials} trials by {pods} pods side by side: each takes a GPU of this memory")  # noqa: T201
    return ExitCode.OK


@dataclass(frozen=True)
class _Verdict:
    """What memory of a known size has room for."""

    limit: int
    """Bytes."""
    largest_micro_batch: int
    """0 when none fits."""
    fitting: TrainingSpec | None
    """The first way to train that fits: the wish itself, else what the train stage would make of it, or advise."""
    pieces: int
    """Over how many GPUs the base is dealt out for it; 1 when each holds it whole."""
    weights: int
    """Bytes of the base on each GPU in that way."""

    def step_down(self, training: TrainingSpec) -> str:
        """What becomes of a training, in words."""
        room = f"{self.limit / _GIB:.1f} GiB"
        if self.fitting is None:
            return f"no way to train it fits {room}; take a larger GPU, more of them, or a smaller base model"
        if self.fitting == training and self.pieces == 1:
            return f"it fits {room} as it is"
        changes = changes_in_words(training, self.fitting)
        if self.fitting.sequence_length != training.sequence_length:
            return (
                f"it does not fit {room} and will be refused; set {changes}, which leaves longer examples out"
            )
        if self.pieces > 1:
            dealt = f"the base model dealt out over {self.pieces} GPUs ({self.weights / _GIB:.2f} GiB of weights each)"
            changes = f"{dealt} and {changes}" if changes else dealt
        return f"it does not fit {room}; the train stage takes {changes}: the same effective batch and result"


def _processes(spec: FineTuneRunSpec) -> int:
    """One on each GPU of the run."""
    gpu = spec.resources.train.gpu
    return 1 if gpu is None else gpu.count * gpu.nodes


def find_config(uri: str, workspace: Path | None) -> Path:
    """The config.json of a base model that is on this machine.

    Raises:
        UnknownShape: it is not.
    """
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path)) / "config.json"
    if uri.startswith("hf://"):
        repository, _, revision = uri.removeprefix("hf://").partition("@")
        owner, _, name = repository.partition("/")
        if workspace is not None:
            folder = workspace / "store" / base_model_folder(owner, name, revision or "main")
            others = [] if _COMMIT.fullmatch(revision) else sorted(folder.parent.glob("*/config.json"))
            for file in (folder / "config.json", *others):
                if file.is_file():
                    return file
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(repository, "config.json", revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    raise UnknownShape(f"{uri} is not on this machine; name its config.json with --config")


def _device(arguments: argparse.Namespace, spec: FineTuneRunSpec) -> str:
    if arguments.device:
        return str(arguments.device)
    return "cuda" if arguments.gpu_memory or spec.resources.train.gpu else "cpu"


def _value_bytes(training: TrainingSpec, on_gpu: bool) -> int:
    """`auto` is bfloat16 on a GPU; on a CPU it is measured, and float32 is the larger of the two."""
    wish = training.quantization.compute_dtype
    return 2 if wish is ComputeDtype.BFLOAT16 or (wish is ComputeDtype.AUTO and on_gpu) else 4


def _quantity(text: str) -> int:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 24Gi")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def _to_json(
    estimate: MemoryEstimate, training: TrainingSpec, numbers: Numbers, verdict: _Verdict | None, pods: int
) -> str:
    fitting = verdict.fitting if verdict else None
    return json.dumps(
        {
            "device": numbers.device,
            "computeBytes": numbers.value_bytes,
            "loraRank": training.lora.rank,
            "microBatchSize": training.micro_batch_size,
            "sequenceLength": training.sequence_length,
            "gradientCheckpointing": training.gradient_checkpointing,
            "weightsBytes": estimate.weights,
            "adapterBytes": estimate.adapter,
            "gradientsBytes": estimate.gradients,
            "optimizerBytes": estimate.optimizer,
            "activationsBytes": estimate.activations,
            "processBytes": estimate.process,
            "totalBytes": estimate.total,
            "podsSideBySide": pods,
            "limitBytes": verdict and verdict.limit,
            "fits": verdict and estimate.total <= verdict.limit,
            "largestMicroBatchSize": verdict and verdict.largest_micro_batch,
            "firstThatFits": verdict
            and fitting
            and {
                "microBatchSize": fitting.micro_batch_size,
                "gradientCheckpointing": fitting.gradient_checkpointing,
                "sequenceLength": fitting.sequence_length,
                "baseDealtOver": verdict.pieces,
                "weightsBytes": verdict.weights,
            },
        },
        indent=2,
    )


def _print_table(
    estimate: MemoryEstimate,
    training: TrainingSpec,
    numbers: Numbers,
    answers: int,
    verdict: _Verdict | None,
) -> None:
    console = Console()
    checkpointing = "on" if training.gradient_checkpointing else "off"
    table = Table(
        title=f"{training.micro_batch_size} examples of {training.sequence_length} tokens on {numbers.device}",
        title_justify="left",
    )
    table.add_column("memory")
    table.add_column("GiB", justify="right")
    for name, size in (
        ("weights", estimate.weights),
        ("adapter, with gradients", estimate.adapter + estimate.gradients),
        ("optimizer", estimate.optimizer),
        ("activations", estimate.activations),
        ("process", estimate.process),
        ("total", estimate.total),
    ):
        table.add_row(name, f"{size / _GIB:.2f}")
    console.print(table)
    console.print(
        f"lora.rank {training.lora.rank}, answers of {answers} tokens, "
        f"numbers of {8 * numbers.value_bytes} bits, checkpointing {checkpointing}"
    )
    if verdict is None:
        console.print("name the GPU's memory with --gpu-memory to see what fits")
        return
    console.print(verdict.step_down(training))
    if verdict.largest_micro_batch:
        console.print(f"largest microBatchSize that fits: {verdict.largest_micro_batch}")
