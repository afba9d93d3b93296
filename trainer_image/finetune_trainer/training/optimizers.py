"""AdamW in 32 bits by torch, or with moments of 8 bits by bitsandbytes; and its state in tensors, for checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from finetune_contract.run_spec import OptimizerKind

_TABLES = {"qmap1": "dynamic", "qmap2": "udynamic"}
"""What 8-bit moments are read with: the same for all matrices, so it is not saved."""


def make_optimizer(
    kind: OptimizerKind, parameters: Iterable[torch.nn.Parameter], rate: float
) -> torch.optim.Optimizer:
    """Without weight decay: the adapter starts at nothing and is small."""
    if kind is OptimizerKind.ADAMW_8BIT:
        from bitsandbytes.optim.adamw import AdamW8bit

        eight_bits: torch.optim.Optimizer = AdamW8bit(  # type: ignore[no-untyped-call]
            list(parameters), lr=rate, weight_decay=0.0
        )
        return eight_bits
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)


def step_if_finite(optimizer: torch.optim.Optimizer, *numbers: Tensor) -> None:
    """One step, or none when a number is not finite.

    torch's optimizer finds that out where the numbers are, so a GPU goes on while they are on their way to the host.
    """
    finite = torch.stack([number.isfinite() for number in numbers]).all()
    if isinstance(optimizer, torch.optim.AdamW):
        fused: Any = optimizer
        fused.grad_scale, fused.found_inf = None, (~finite).float()  # as a GradScaler tells it
        optimizer.step()
    elif finite:
        optimizer.step()


def saved_state(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> dict[str, Tensor]:
    """What the optimizer remembers of a parameter."""
    state = optimizer.state.get(parameter, {})
    return {name: torch.as_tensor(value) for name, value in state.items() if name not in _TABLES}


def state_fits(parameter: torch.nn.Parameter, saved: Mapping[str, Tensor]) -> bool:
    """The saved moments can be those of this parameter."""
    moments = [saved[name] for name in ("exp_avg", "exp_avg_sq", "state1", "state2") if name in saved]
    return (
        "step" in saved and len(moments) == 2 and all(moment.shape == parameter.shape for moment in moments)
    )


def restore_state(
    optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, saved: Mapping[str, Tensor]
) -> None:
    """The reverse of saved_state, on the parameter's device."""
    device = parameter.device
    state: dict[str, Any] = {name: value.to(device) for name, value in saved.items() if name != "step"}
    if "exp_avg" in saved:
        # the fused optimizer counts its steps on the GPU
        state["step"] = saved["step"].to(device) if device.type == "cuda" else saved["step"]
    else:
        state["step"] = int(saved["step"])
        if "absmax1" in saved:
            eight_bits: Any = optimizer
            if "dynamic" not in eight_bits.name2qmap:
                eight_bits.fill_qmap()
            for name, table in _TABLES.items():
                eight_bits.name2qmap[table] = eight_bits.name2qmap[table].to(device)
                state[name] = eight_bits.name2qmap[table]
    optimizer.state[parameter] = state
