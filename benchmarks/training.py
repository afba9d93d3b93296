"""Speed of the train stage's loop on a GPU, against TRL (packed, Liger) and Unsloth (packed), and against the GPU.

The real shapes of Llama-2-7B and Gemma-2-2B with random weights, for speed does not hang on their values. The rows have
the lengths and the common beginnings of a dataset that was made from a blog (`--rows site`), or nothing in common.
Every contestant runs in a process of its own, and computes up to `--row-tokens` tokens at a time. One that is not
installed is left out and named; one that does not fit is tried with half as many, and that is told.

Prints one JSON object as its last line. Real tokens are those of the examples: padding is not counted, and what several
begin with counts for each. `share_of_limit` holds the tokens that ours computes to what a training with a frozen base
takes, 4 FLOP a weight and token, at the speed that the GPU keeps up with the best of products for a second. Without a
GPU `--model tiny` runs ours to prove the command; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from training_models import SHAPES, linear_weights, save_random_model
from training_peers import PEERS, time_peer
from training_rows import KINDS, LONGEST, largest_plan, rows_of

from finetune_contract.run_spec import ComputeDtype, LoraSpec, TrainingSpec
from finetune_trainer.training import row_attention
from finetune_trainer.training.adapter import add_adapter, attention_name, load_quantized_base
from finetune_trainer.training.compiled_layers import compile_if_it_proves
from finetune_trainer.training.compute_dtype import choose_device, choose_dtype
from finetune_trainer.training.loop import TrainingLoop
from finetune_trainer.training.memory_check import fit_memory

RANK = 16
_GIB = 2**30


def time_ours(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Real tokens a second over the steps after the warm-up, and the most memory."""
    device = choose_device()
    dtype = choose_dtype(ComputeDtype.BFLOAT16 if device.type == "cuda" else ComputeDtype.FLOAT32, device)
    training = TrainingSpec(
        max_steps=arguments.steps + arguments.warm_up,
        epochs=100,
        sequence_length=LONGEST,
        lora=LoraSpec(rank=RANK, alpha=RANK),
        gradient_checkpointing=arguments.checkpointing,
    )
    rows = rows_of(arguments.rows, int(SHAPES[arguments.model]["vocab_size"]))
    plan = largest_plan(rows, training, arguments.row_tokens)
    examples = plan.effective_batch_size
    training = training.model_copy(update={"effective_batch_size": examples, "micro_batch_size": examples})
    estimate = fit_memory(folder, training, plan, device, dtype).estimate
    model = add_adapter(load_quantized_base(folder, training, device, dtype), training)
    loop = TrainingLoop(model, plan, training, device, dtype)
    batches = [batch for step in range(plan.total_steps) for batch in plan.step_micro_batches(step)]
    longest = max(batches, key=len)
    if attention_name(model) == row_attention.NAME:
        compile_if_it_proves(model, lambda: loop.batch_loss(longest, len(longest.labels)))
    records = list(loop.steps(lambda: False))[arguments.warm_up :]
    tokens, seconds = sum(r.tokens for r in records), sum(r.seconds for r in records)
    computed = sum(len(batch) for batch in batches[arguments.warm_up :])
    figures = {
        "tokens_per_second": tokens / seconds,
        "computed_per_second": computed / seconds,
        "examples_a_step": examples,
        "peak_gib": _peak_gib(),
    }
    return figures if estimate is None else {**figures, "estimated_gib": estimate.tensors / _GIB}


def best_product_flops(size: int, at_least: float = 1.0) -> float:
    """FLOP a second of products of two square 16-bit matrices, over a second: a GPU that works gets slower."""
    device = choose_device()
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    count, start = 0, time.perf_counter()
    begun, done = start, 0
    while time.perf_counter() - start < 2 * at_least:
        for _ in range(10):
            _ = left @ right
        _synchronize()
        count += 10
        if time.perf_counter() - start < at_least:  # the first half warms it up
            begun, done = time.perf_counter(), count
    return 2 * size**3 * (count - done) / (time.perf_counter() - begun)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak_gib() -> float:
    return torch.cuda.max_memory_allocated() / _GIB if torch.cuda.is_available() else 0.0


def _in_own_process(contestant: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """A contestant's figures, or why there are none."""
    command = [*_command(arguments.model, folder), "--contestant", contestant]
    command += ["--steps", str(arguments.steps)]
    command += ["--warm-up", str(arguments.warm_up), "--rows", arguments.rows]
    command += ["--checkpointing"] if arguments.checkpointing else []
    row_tokens = arguments.row_tokens
    while True:
        whole = [*command, "--row-tokens", str(row_tokens)]
        done = subprocess.run(whole, capture_output=True, text=True)
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
            return {**found, "row_tokens": row_tokens}
        print(f"{contestant}, {row_tokens} tokens at a time:\n{done.stderr[-3000:]}", file=sys.stderr)
        if "OutOfMemoryError" not in done.stderr or row_tokens <= 2048:
            return {"failed": _last_error(done.stderr)}
        row_tokens //= 2


def _command(model: str, folder: Path) -> list[str]:
    return [sys.executable, __file__, "--model", model, "--folder", str(folder)]


def _last_error(text: str) -> str:
    lines = text.strip().splitlines()
    errors = [line for line in lines if "Error" in line.split(":")[0]]
    return (errors or lines or ["no word"])[-1][:200]


def run_all(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every contestant in turn, some rounds, so that a GPU that grows warm slows all."""
    peers = arguments.peers if torch.cuda.is_available() else []
    contestants = ["ours", *peers]
    rounds = [
        {name: _in_own_process(name, folder, arguments) for name in contestants}
        for _ in range(arguments.rounds)
    ]
    result: dict[str, Any] = {
        "model": arguments.model,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "checkpointing": arguments.checkpointing,
        "rows": arguments.rows,
    }
    speeds: dict[str, float] = {}
    for name in contestants:
        good = [one[name] for one in rounds if "failed" not in one[name]]
        if not good:
            result[f"{name}_failed"] = rounds[0][name]["failed"]
            continue
        speeds[name] = statistics.median(figures["tokens_per_second"] for figures in good)
        result[f"{name}_tokens_per_second"] = round(speeds[name], 1)
        result[f"{name}_peak_gib"] = round(max(figures["peak_gib"] for figures in good), 2)
        result[f"{name}_row_tokens"] = good[0]["row_tokens"]
        if "estimated_gib" in good[0]:
            result[f"{name}_estimated_gib"] = round(good[0]["estimated_gib"], 2)
        if name == "ours":
            computed = statistics.median(figures["computed_per_second"] for figures in good)
            result["ours_computed_per_second"] = round(computed, 1)
            result["examples_a_step"] = good[0]["examples_a_step"]
    limit = best_product_flops(8192 if torch.cuda.is_available() else 512) / (
        4 * linear_weights(arguments.model)
    )
    result["limit_tokens_per_second"] = round(limit, 1)
    if "ours" in speeds:
        result["share_of_limit"] = round(result["ours_computed_per_second"] / limit, 3)
        for peer in peers:
            result[f"ratio_to_{peer}"] = round(speeds["ours"] / speeds[peer], 2) if peer in speeds else None
    return result


def main() -> None:
    """Time all, or one in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(SHAPES), default="llama-2-7b")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations, all contestants")
    parser.add_argument("--rows", choices=KINDS, default="site", help="site: as a dataset of a blog has them")
    parser.add_argument("--row-tokens", type=int, default=8192, help="computed at a time, at most")
    parser.add_argument("--steps", type=int, default=20, help="timed steps")
    parser.add_argument("--warm-up", type=int, default=6, help="steps before them")
    parser.add_argument("--rounds", type=int, default=1, help="of all contestants in turn; the median counts")
    parser.add_argument("--folder", type=Path, help="keep the random model here (default: a scratch folder)")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="whom to time beside ours")
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--contestant", choices=("ours", *PEERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.rank = RANK
    if arguments.make:
        save_random_model(arguments.folder, arguments.model)
        return
    if arguments.contestant == "ours":
        print(json.dumps(time_ours(arguments.folder, arguments)))
        return
    if arguments.contestant:
        print(json.dumps(time_peer(arguments.contestant, arguments.folder, arguments)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        if not (folder / "config.json").exists():
            making = [*_command(arguments.model, folder), "--make"]
            subprocess.run(making, check=True)  # it would keep its memory on the GPU here
        print(json.dumps(run_all(folder, arguments)))


if __name__ == "__main__":
    main()
