from __future__ import annotations

import pytest
import torch

from finetune_trainer.training import losses
from finetune_trainer.training.fused_head import loss_and_gradient
from finetune_trainer.training.losses import head_loss


@pytest.mark.parametrize("softcap", [None, 0.7])
def test_the_formulas_are_what_automatic_differentiation_finds(softcap: float | None):
    torch.manual_seed(1)
    hidden, head = torch.randn(9, 16, requires_grad=True), torch.randn(31, 16)
    labels = torch.randint(31, (9,))
    logits = hidden @ head.t()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    (wanted,) = torch.autograd.grad(expected, [hidden])

    loss, gradient = loss_and_gradient(hidden.detach(), labels, head, softcap)

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, wanted)


def test_pieces_by_formula_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(losses, "tokens_at_once", lambda vocabulary: 4)
    monkeypatch.setattr(losses.fused_head, "compiled", lambda: loss_and_gradient)
    torch.manual_seed(1)
    head = torch.nn.Linear(16, 31, bias=False).requires_grad_(False)
    labels = torch.randint(31, (9,))
    found = []
    for by_formula in (False, True):
        torch.manual_seed(2)
        hidden = torch.randn(1, 9, 16, requires_grad=True)
        loss = head_loss(hidden, labels, head, 0.7, divisor=3, by_formula=by_formula)
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((loss.detach(), hidden.grad))

    torch.testing.assert_close(found[1], found[0])
