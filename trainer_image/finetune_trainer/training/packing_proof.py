"""Does this model read examples that lie side by side as it reads each alone?

A layer that is no attention, such as a short convolution or a recurrence, goes over the whole row and mixes the
examples; an attention with something of its own may be another one than the row's. The families of the tests are
trusted; of any other two examples are read both ways before the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

from finetune_trainer.training import attention
from finetune_trainer.training.adapter import attention_name
from finetune_trainer.training.encoding import EncodedExample
from finetune_trainer.training.losses import row_inputs
from finetune_trainer.training.packing import Branch, PackedBatch
from finetune_trainer.training.resting import at_rest

PROVEN = frozenset({"gemma2", "llama", "mistral", "qwen2", "qwen3"})
"""Families whose gradients the tests hold to those of single examples."""
LARGEST_DIFFERENCE = 0.05
"""Between the two attentions, of what they make of an example: rounding to 16 bits makes less."""
LARGEST_CHANGE = 0.005
"""Of what becomes of a token when another example changes: without a leak there is none, or a last bit of 16."""
OWN_ATTENTION = ("sdpa", "eager")


def why_not_packed(model: Any, examples: Sequence[EncodedExample]) -> str:
    """Empty when examples in a row are read as they should be; the longest is tried, behind the shortest.

    Args:
        model: with its adapter, and an attention for packed rows.
    Raises:
        OutOfMemoryError: the longest example does not fit.
    """
    causal = model.get_base_model()
    if causal.config.model_type in PROVEN:
        return ""
    implementation = attention_name(model)
    try:
        with at_rest(model):
            return _difference(model, causal, min(examples, key=len), max(examples, key=len))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        model.set_attn_implementation(implementation)


def use_own_attention(model: Any) -> None:
    """The model's own, for examples that are run one by one."""
    for implementation in OWN_ATTENTION:
        try:
            model.set_attn_implementation(implementation)
        except (ValueError, ImportError):
            continue
        if attention_name(model) == implementation:
            return


def _difference(model: Any, causal: Any, first: EncodedExample, second: EncodedExample) -> str:
    """What is wrong with the second example, by itself and behind the first."""
    use_own_attention(model)
    alone = _read(causal, second.token_ids)
    model.set_attn_implementation(attention.NAME)
    apart = float(vector_norm(_read(causal, second.token_ids) - alone) / vector_norm(alone))
    if not apart <= LARGEST_DIFFERENCE:
        return f"its attention is another one than that of packed rows: an example differs by {apart:.1%}"
    behind = _read(causal, first.token_ids, second.token_ids)[len(first) :]
    changed = _read(causal, first.token_ids[::-1], second.token_ids)[len(first) :]
    leaked = float((vector_norm(behind - changed, dim=-1) / vector_norm(behind, dim=-1)).max())
    if not leaked <= LARGEST_CHANGE:
        return f"some of its layers are no attention: an example changes the one behind it by {leaked:.1%}"
    return ""


def _read(causal: Any, *examples: Sequence[int]) -> Tensor:
    """(T, width): what the decoder makes of each token, in 32 bits. With the model's own attention of one example."""
    batch = _side_by_side(examples)
    inputs = row_inputs(causal, batch, causal.device)
    if inputs is None:
        given: dict[str, Any] = {"input_ids": torch.tensor([batch.token_ids], device=causal.device)}
    else:
        given = {"input_ids": inputs.token_ids, "position_ids": inputs.positions, **inputs.mask}
    hidden: Tensor = causal.base_model(use_cache=False, **given).last_hidden_state[0]
    return hidden.float()


def _side_by_side(examples: Sequence[Sequence[int]]) -> PackedBatch:
    """With nothing in common, in this order, and nothing to learn."""
    branches: list[Branch] = []
    for tokens in examples:
        start = branches[-1].end if branches else 0
        branches.append(Branch(start, start + len(tokens), ()))
    return PackedBatch(
        token_ids=tuple(token for tokens in examples for token in tokens),
        positions=tuple(place for tokens in examples for place in range(len(tokens))),
        branches=tuple(branches),
        label_places=(),
        labels=(),
        answer_lengths=(),
    )
