"""The processes of one training: one a GPU, on one node or several. Owner of torch.distributed.

Every process makes the gradients of its own micro-batches; the adapter's gradients are added up over all of them, so
that each takes the same step. Each has the whole model, or its piece of the base (`dealt_base.py`). Must not know the
model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed
from torch import Tensor

from finetune_trainer.training.packing import PackedBatch

LONGEST_WAIT = timedelta(hours=2)
"""For the process that fetches the base model for the others."""


class Gathering(Protocol):
    """Something on its way from the other processes."""

    def wait(self) -> object:
        """What is computed from now on finds it there."""


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this is."""

    number: int = 0
    count: int = 1
    on_this_node: int = 0
    """Number among the processes of this node."""

    @property
    def is_first(self) -> bool:
        """The one that writes checkpoints, progress and the report."""
        return self.number == 0

    def share(self, micro_batches: Sequence[PackedBatch]) -> list[PackedBatch]:
        """This process's micro-batches."""
        return self.shares(micro_batches)[self.number]

    def shares(self, micro_batches: Sequence[PackedBatch]) -> list[list[PackedBatch]]:
        """Those of every process: the longest first, each to the process that has least so far."""
        if self.count == 1:
            return [list(micro_batches)]
        shares: list[list[PackedBatch]] = [[] for _ in range(self.count)]
        for batch in sorted(micro_batches, key=len, reverse=True):
            min(shares, key=lambda given: sum(len(other) for other in given)).append(batch)
        return shares

    def add_up(self, parameters: Iterable[torch.nn.Parameter], loss: Tensor) -> Tensor:
        """Sum the gradients over all processes, in one message; the summed loss."""
        if self.count == 1:
            return loss
        learning = list(parameters)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
        flat = torch.cat([loss.detach().float().reshape(1), *(g.float().reshape(-1) for g in gradients)])
        torch.distributed.all_reduce(flat)
        start = 1
        for parameter, gradient in zip(learning, gradients, strict=True):
            piece = flat[start : start + gradient.numel()]
            parameter.grad = gradient.copy_(piece.view_as(gradient))
            start += gradient.numel()
        return flat[0]

    def any(self, here: bool, device: torch.device) -> bool:
        """True in every process when it is in one."""
        if self.count == 1:
            return here
        flag = torch.tensor(int(here), device=device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag)

    def agree(self, number: int, device: torch.device) -> bool:
        """All processes have the same number."""
        if self.count == 1:
            return True
        ends = torch.tensor([number, -number], device=device)
        torch.distributed.all_reduce(ends, torch.distributed.ReduceOp.MAX)
        return bool(ends[0] == -ends[1])

    def smallest(self, number: int, device: torch.device) -> int:
        """The smallest of the processes' numbers, in every process."""
        if self.count == 1:
            return number
        found = torch.tensor(number, device=device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MIN)
        return int(found)

    def gather(self, whole: Tensor, piece: Tensor) -> Gathering:
        """Fill `whole` with the pieces of all processes in their order, beside whatever is computed meanwhile."""
        gather = torch.distributed.all_gather_into_tensor
        return gather(whole, piece, async_op=True)  # type: ignore[return-value]  # None outside the group

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            torch.distributed.barrier()

    def seed(self, run_seed: int, step: int) -> None:
        """Random numbers of a step, other ones in each process, and the same after a checkpoint."""
        if self.count > 1:
            text = f"{run_seed}/{step}/{self.number}".encode()
            torch.manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:4], "big"))


ALONE = Ranks()


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """What torchrun, or the stage in its place, put into the environment."""
    return Ranks(
        int(environment.get("RANK", "0")),
        int(environment.get("WORLD_SIZE", "1")),
        int(environment.get("LOCAL_RANK", "0")),
    )


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[Ranks]:
    """Meet the other processes at MASTER_ADDR and MASTER_PORT, and leave them at the end."""
    if ranks.count == 1:
        yield ranks
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        rank=ranks.number,
        world_size=ranks.count,
        timeout=LONGEST_WAIT,
        device_id=device if on_gpu else None,
    )
    try:
        yield ranks
    finally:
        torch.distributed.destroy_process_group()
