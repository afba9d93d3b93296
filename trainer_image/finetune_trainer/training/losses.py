"""Answer-only loss of a micro-batch: logits are made where an answer token is predicted, and nowhere else.

Head and cross entropy are one operation that makes the logits of some tokens at a time, takes the gradient while it
has them, and lets them go. So the logits of a batch are never held, however large the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from finetune_trainer.training import attention, fused_head, row_attention
from finetune_trainer.training.embedding_noise import token_lengths, with_noise
from finetune_trainer.training.head_chunks import tokens_at_once
from finetune_trainer.training.host_copies import sent
from finetune_trainer.training.packing import PackedBatch

PLAIN_HEADS = frozenset(
    {
        "gemma", "gemma2", "gemma3_text", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3",
    }
)  # fmt: skip
"""Families whose logits are the head's product, with a soft cap where the config names one, and nothing else."""


@dataclass(frozen=True)
class RowInputs:
    """A micro-batch as the model reads it, on its device."""

    token_ids: Tensor
    """(1, T), with the padding."""
    positions: Tensor
    """(1, T)"""
    mask: dict[str, Any]
    """What attention is told of the row, by the name of its argument."""
    label_places: Tensor
    labels: Tensor
    padding: int


def row_inputs(model: torch.nn.Module, batch: PackedBatch, device: torch.device) -> RowInputs | None:
    """Everything that a row's loss needs beside the model; None where examples are run one by one.

    The row is filled up to whole blocks where attention works on these.
    """
    causal = _causal(model)
    implementation: str = causal.config._attn_implementation
    if implementation not in (attention.NAME, row_attention.NAME):
        return None
    padding = 0
    if implementation == row_attention.NAME:
        padding = row_attention.filled_length(len(batch)) - len(batch)
    mask: dict[str, Any] = (
        {"branches": attention.branch_masks(batch, device)}
        if implementation == attention.NAME
        else {"row": row_attention.row_mask(batch, padding, causal.config, device)}
    )
    return RowInputs(
        token_ids=sent([(*batch.token_ids, *(0,) * padding)], device),
        positions=sent([(*batch.positions, *(0,) * padding)], device),
        mask=mask,
        label_places=sent(batch.label_places, device),
        labels=sent(batch.labels, device),
        padding=padding,
    )


def summed_loss(
    model: torch.nn.Module,
    batch: PackedBatch,
    device: torch.device,
    divisor: int = 1,
    noise: float = 0.0,
    inputs: RowInputs | None = None,
) -> Tensor:
    """Cross entropy summed over the answer tokens.

    Args:
        divisor: the sum is divided by it, before the gradient is taken: the answer tokens of the effective batch.
        noise: the alpha of NEFTune's noise on the embeddings; 0 for none.
        inputs: of this row, where they were made ahead.
    """
    inputs = inputs or row_inputs(model, batch, device)
    causal = _causal(model)
    if inputs is None:
        return _one_by_one_loss(model, batch, device, noise) / divisor
    arguments: dict[str, Any] = {
        **_read(causal, inputs.token_ids, token_lengths(batch, inputs.padding) if noise else [], noise),
        "position_ids": inputs.positions,
        "use_cache": False,
        **inputs.mask,
    }
    head: torch.nn.Module = causal.get_output_embeddings()
    if causal.config.model_type not in PLAIN_HEADS or any(p.requires_grad for p in head.parameters()):
        logits: Tensor = model(**arguments, logits_to_keep=inputs.label_places).logits[0]
        return cross_entropy(logits.float(), inputs.labels, reduction="sum") / divisor
    hidden: Tensor = causal.base_model(**arguments).last_hidden_state[:, inputs.label_places]
    softcap: float | None = getattr(causal.config, "final_logit_softcapping", None)
    by_formula = "row" in inputs.mask and device.type == "cuda" and _is_product(head)
    return head_loss(hidden, inputs.labels, head, softcap, divisor, by_formula)


def _causal(model: torch.nn.Module) -> Any:
    """The model below its adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def head_loss(
    hidden: Tensor,
    labels: Tensor,
    head: torch.nn.Module,
    softcap: float | None,
    divisor: int,
    by_formula: bool = False,
) -> Tensor:
    """Cross entropy behind a frozen head, summed and divided. Logits of `tokens_at_once` tokens live at a time.

    Args:
        hidden: (1, T, width)
        labels: (T,)
        by_formula: the head is a plain product and a compiler is at hand.
    """
    total: Tensor = _HeadLoss.apply(hidden, labels, head, softcap, divisor, by_formula)
    return total


def _is_product(head: torch.nn.Module) -> bool:
    return type(head) is torch.nn.Linear and head.bias is None


class _HeadLoss(torch.autograd.Function):
    """The gradient of `hidden` is made on the way forward, piece by piece; the way back only hands it on."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        labels: Tensor,
        head: torch.nn.Module,
        softcap: float | None,
        divisor: int,
        by_formula: bool,
    ) -> Tensor:
        learns: bool = ctx.needs_input_grad[0]
        size = tokens_at_once(next(head.parameters()).shape[0])
        total = torch.zeros((), device=hidden.device)
        gradients: list[Tensor] = []
        for start in range(0, len(labels), size):
            if by_formula and learns:
                piece, answers = hidden[:, start : start + size].detach(), labels[start : start + size]
                loss, gradient = _by_formula(piece, answers, head, softcap)
                gradients.append(gradient / divisor)
                total += loss / divisor
                continue
            piece = hidden[:, start : start + size].detach().requires_grad_(learns)
            with torch.set_grad_enabled(learns):
                loss = _piece_loss(piece, labels[start : start + size], head, softcap) / divisor
            if learns:
                gradients += torch.autograd.grad(loss, [piece])
            total += loss.detach()
        if learns:
            ctx.save_for_backward(gradients[0] if len(gradients) == 1 else torch.cat(gradients, dim=1))
        return total

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * given[0].to(gradient.dtype), None, None, None, None, None


def _by_formula(
    piece: Tensor, labels: Tensor, head: torch.nn.Module, softcap: float | None
) -> tuple[Tensor, Tensor]:
    weight: Tensor = head.weight  # type: ignore[assignment]
    loss, gradient = fused_head.compiled()(piece[0].to(weight.dtype), labels, weight, softcap)
    return loss, gradient[None].to(piece.dtype)


def _piece_loss(piece: Tensor, labels: Tensor, head: torch.nn.Module, softcap: float | None) -> Tensor:
    logits: Tensor = head(piece)[0]
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    return cross_entropy(logits.float(), labels, reduction="sum")


def _read(causal: Any, token_ids: Tensor, lengths: list[int], noise: float) -> dict[str, Tensor]:
    """The model's input: the tokens, or their embeddings with noise."""
    if not noise:
        return {"input_ids": token_ids}
    return {"inputs_embeds": with_noise(causal.get_input_embeddings()(token_ids), lengths, noise)}


def _one_by_one_loss(
    model: torch.nn.Module, batch: PackedBatch, device: torch.device, noise: float
) -> Tensor:
    """For models whose attention cannot be replaced: every example is a row of its own."""
    total = torch.zeros((), device=device)
    label_start = 0
    for branch, count in zip(batch.branches, batch.answer_lengths, strict=True):
        token_ids = torch.tensor([[batch.token_ids[place] for place in branch.path]], device=device)
        labels = torch.tensor(batch.labels[label_start : label_start + count], device=device)
        label_start += count
        read = _read(model, token_ids, [token_ids.shape[1]] * token_ids.shape[1], noise)
        logits: Tensor = model(**read, use_cache=False).logits[0]
        total = total + cross_entropy(logits[-count - 1 : -1].float(), labels, reduction="sum")
    return total
