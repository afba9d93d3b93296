from __future__ import annotations

import math

import pytest
import torch

from finetune_trainer.training import attention
from finetune_trainer.training.embedding_noise import token_lengths, with_noise
from finetune_trainer.training.losses import summed_loss
from finetune_trainer.training.packing import pack
from tests.finetune_trainer.training.test_equality import model_of, rows

CPU = torch.device("cpu")


def test_noise_is_uniform_up_to_alpha_over_the_root_of_length_times_width():
    """The bound of the paper, arXiv:2310.05914: alpha / sqrt(L d)."""
    torch.manual_seed(1)
    embeddings = torch.zeros(1, 50, 64)

    noise = with_noise(embeddings, [50] * 50, alpha=5.0)

    bound = 5.0 / math.sqrt(50 * 64)
    assert float(noise.abs().max()) <= bound
    assert float(noise.abs().max()) > 0.99 * bound
    assert float(noise.var()) == pytest.approx(bound**2 / 3, rel=0.05)


def test_each_example_of_a_row_has_the_noise_of_its_own_length_and_padding_has_none():
    batch = pack(rows())
    lengths = token_lengths(batch, 4)
    torch.manual_seed(1)

    noise = with_noise(torch.zeros(1, len(lengths), 4096), lengths, alpha=5.0).abs().amax(-1)[0]

    expected = [5.0 / math.sqrt(length * 4096) if length else 0.0 for length in lengths]
    torch.testing.assert_close(noise, torch.tensor(expected), rtol=0.02, atol=0)
    assert len(set(lengths)) > 3
    assert lengths[-4:] == [0] * 4


@pytest.mark.parametrize("implementation", [attention.NAME, "eager"])
def test_a_model_is_trained_with_noise_only_when_it_is_asked_for(implementation: str):
    model, batch = model_of("gemma2", implementation, "cpu"), pack(rows())

    plain = [summed_loss(model, batch, CPU).item() for _ in range(2)]
    noisy = [summed_loss(model, batch, CPU, noise=5.0).item() for _ in range(2)]
    hardly = summed_loss(model, batch, CPU, noise=1e-6).item()

    assert plain[0] == plain[1]
    assert len({*plain, *noisy}) == 3
    assert hardly == pytest.approx(plain[0], rel=1e-4)
