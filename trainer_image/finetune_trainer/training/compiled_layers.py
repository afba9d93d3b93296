"""Decoder layers compiled for rows of any length: one graph for all layers of a kind.

Pays on a GPU, where it joins small operations into few kernels. On a CPU the compiler takes longer than it saves.
A machine may lack what the compiler needs, so the first row is trained both ways before it is trusted.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from finetune_trainer.training import attention

logger = logging.getLogger(__name__)

Backend = str | Callable[..., Any]
"""What makes machine code of a layer's graph."""

LARGEST_DIFFERENCE = 0.02
"""Of the two losses of the first row, in 16 bits. A wrong mask makes more."""

LARGEST_NUMBER_OF_GRAPHS = 32
"""Of one model's layers; past it they are run uncompiled, with no more than a warning. A kind of layer has one each
with and without gradients of its input and of its weights, so that Gemma's two kinds come near torch's limit of 8."""


def compile_layers(model: torch.nn.Module, backend: Backend = "inductor") -> int:
    """Compile each decoder layer in place; how many there are. The first row takes the time, whatever its length.

    A layer that recomputes its activations does so around what is compiled. transformers does it inside, where the
    compiler lets no layer hand anything to another, and would leave the whole layer uncompiled without a word.
    """
    set_up_compiler()
    torch.compiler.reset()  # the graphs of an earlier model of this process would count as this one's
    layers = decoder_layers(model)
    for layer in layers:
        layer.compile(dynamic=True, backend=backend)
        if layer.gradient_checkpointing:
            layer.gradient_checkpointing = False  # type: ignore[assignment]
            layer._compiled_call_impl = partial(checkpoint, layer._compiled_call_impl, use_reentrant=False)
    return len(layers)


def _run_plainly(model: torch.nn.Module, recomputed: bool) -> None:
    """The reverse of compile_layers."""
    gc.collect()  # a layer that was broken off keeps recording for its way back until its frames are gone
    for layer in decoder_layers(model):
        layer._compiled_call_impl = None
        layer.gradient_checkpointing = recomputed  # type: ignore[assignment]


def set_up_compiler() -> None:
    """What torch's compiler must know of this process's models."""
    from torch._dynamo import config as tracing
    from torch._functorch import config as partitioning

    tracing.specialize_float = True  # scales and caps are the model's, not the row's
    tracing.recompile_limit = LARGEST_NUMBER_OF_GRAPHS
    # A weight is unpacked on the way forth and on the way back. Found to be the same, it would be kept in 16 bits.
    partitioning.cse = False


def compile_if_it_proves(
    model: torch.nn.Module, first_loss: Callable[[], Tensor], backend: Backend = "inductor"
) -> bool:
    """Compile the layers, and keep that when the first row goes forth and back with the loss that it should have.

    Otherwise the model is as it was, with the attention that needs no compiler: slower, and said so.

    Args:
        first_loss: of a row; with whatever attention the model has at the time.
    Raises:
        OutOfMemoryError: the row does not fit.
    """
    from finetune_trainer.training.frozen_linear import share_inputs

    implementation: str = model.config._attn_implementation  # type: ignore[union-attr, assignment]
    model.set_attn_implementation(attention.NAME)  # type: ignore[operator]
    plain: list[float] = []
    with torch.no_grad():
        share_inputs(model, lambda: plain.append(float(first_loss())))
    (expected,) = plain
    model.set_attn_implementation(implementation)  # type: ignore[operator]
    recomputed = any(layer.gradient_checkpointing for layer in decoder_layers(model))
    compile_layers(model, backend)
    try:
        loss = first_loss()
        loss.backward()  # type: ignore[no-untyped-call]
        found, why = loss.item(), "its loss differs"
    except torch.OutOfMemoryError:
        raise
    except (
        RuntimeError,
        NotImplementedError,
        TypeError,
        ValueError,
        AssertionError,
        ImportError,
        OSError,
    ) as error:
        found, why = math.nan, f"{type(error).__name__}: {str(error)[:300]}"
    model.zero_grad(set_to_none=True)
    if abs(found - expected) <= LARGEST_DIFFERENCE * abs(expected):
        logger.info("decoder layers compiled: loss=%.4f plain_loss=%.4f", found, expected)
        return True
    logger.warning(
        "decoder layers cannot be compiled on this machine and are run one by one, which is slower: "
        "loss=%.4f plain_loss=%.4f (%s)",
        found,
        expected,
        why,
    )
    _run_plainly(model, recomputed)
    model.set_attn_implementation(attention.NAME)  # type: ignore[operator]
    return False


def decoder_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """In the order in which a row goes through them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
