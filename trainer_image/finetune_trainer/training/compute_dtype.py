"""Number format of the matrix products: measured on a CPU, because some do bfloat16 forty times slower than float32."""

from __future__ import annotations

import logging
import time

import torch

from finetune_contract.run_spec import ComputeDtype

logger = logging.getLogger(__name__)


def choose_device(number: int = 0) -> torch.device:
    """A GPU when there is one: that of the process's number on its node."""
    return torch.device("cuda", number) if torch.cuda.is_available() else torch.device("cpu")


def choose_dtype(wish: ComputeDtype, device: torch.device) -> torch.dtype:
    """The wish, or with `auto` bfloat16 on a GPU that has it and on a CPU the faster of the two."""
    if wish is not ComputeDtype.AUTO:
        return torch.bfloat16 if wish is ComputeDtype.BFLOAT16 else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    seconds = {dtype: _seconds_per_product(dtype) for dtype in (torch.float32, torch.bfloat16)}
    fastest = min(seconds, key=lambda dtype: seconds[dtype])
    logger.info(
        "compute dtype measured: chosen=%s float32_ms=%.2f bfloat16_ms=%.2f",
        str(fastest).removeprefix("torch."),
        1000 * seconds[torch.float32],
        1000 * seconds[torch.bfloat16],
    )
    return fastest


def _seconds_per_product(dtype: torch.dtype, size: int = 384) -> float:
    """The best of three products of two square matrices, after one to warm up."""
    left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    best = float("inf")
    for attempt in range(4):
        start = time.perf_counter()
        _ = left @ right
        if attempt:
            best = min(best, time.perf_counter() - start)
    return best
