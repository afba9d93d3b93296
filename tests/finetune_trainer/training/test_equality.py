"""Packed, fused and compiled training is the plain one: losses and gradients of each example alone, by transformers.

Small random models of the families that are used, in 32 bits. The loss and each gradient of the adapter, held to the
largest of its matrix, agree to a thousandth. On a GPU, where there is one, the kernels multiply in TF32 at most, and a
hundredth is allowed.
"""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_trainer.training import attention, head_chunks, losses, row_attention, spread_keys
from finetune_trainer.training.compiled_layers import compile_layers
from finetune_trainer.training.encoding import EncodedExample
from finetune_trainer.training.losses import row_inputs, summed_loss
from finetune_trainer.training.packing import PackedBatch, pack

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SIZES, "num_key_value_heads": 4},
    "smollm2": {
        "model_type": "llama",
        **SIZES,
        "hidden_size": 48,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
    },
    "mistral": {"model_type": "mistral", **SIZES, "sliding_window": 7},
    "qwen2": {"model_type": "qwen2", **SIZES},
    "qwen3": {"model_type": "qwen3", **SIZES},
    "gemma2": {
        "model_type": "gemma2",
        **SIZES,
        "sliding_window": 7,
        "attn_logit_softcapping": 0.5,
        "final_logit_softcapping": 0.3,
        "query_pre_attn_scalar": 16,
    },
}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TOLERANCE = {"cpu": 1e-3, "cuda": 1e-2}


def rows() -> list[EncodedExample]:
    """Some begin alike, one is the beginning of another, one is there twice, one is a stranger."""
    numbers = random.Random(4)  # noqa: S311 - tokens, not a secret

    def some(count: int) -> tuple[int, ...]:
        return tuple(numbers.randrange(3, 61) for _ in range(count))

    start, longer = some(9), some(6)
    made = [
        (start + some(2), some(3)),
        (start + longer, some(4)),
        (start + longer, some(2)),
        (start + longer + some(3), some(5)),
        (some(12), some(3)),
    ]
    examples = [EncodedExample(str(place), prompt, answer) for place, (prompt, answer) in enumerate(made)]
    return [*examples, examples[1]]


def model_of(family: str, implementation: str, device: str) -> torch.nn.Module:
    """With an adapter that already does something; always the same weights."""
    attention.register()
    row_attention.register()
    torch.manual_seed(9)
    fields = dict(FAMILIES[family])
    config = AutoConfig.for_model(
        fields.pop("model_type"), pad_token_id=0, bos_token_id=1, eos_token_id=2, **fields
    )
    base = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    with warnings.catch_warnings():  # peft still asks for a property that transformers renames
        warnings.simplefilter("ignore", FutureWarning)
        model = get_peft_model(
            base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
        )
    for parameter in model.parameters():  # far from the flat start, so that masks and caps matter
        parameter.data.mul_(2)
    return model.to(device).train()


def single_losses(model: torch.nn.Module, device: str) -> torch.Tensor:
    total = torch.zeros((), device=device)
    for row in rows():
        logits = model(input_ids=torch.tensor([row.token_ids], device=device), use_cache=False).logits[0]
        labels = torch.tensor(row.answer_ids, device=device)
        predicting = logits[len(row.prompt_ids) - 1 : -1].float()
        total = total + torch.nn.functional.cross_entropy(predicting, labels, reduction="sum")
    return total


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def assert_same_training(
    model: torch.nn.Module, loss: torch.Tensor, plain: torch.nn.Module, expected: torch.Tensor, device: str
) -> None:
    tolerance = TOLERANCE[device]
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0)
    found, wanted = gradients(model, loss), gradients(plain, expected)
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        largest = float(wanted[name].abs().max())
        assert largest > 0, f"{name} learns nothing"
        torch.testing.assert_close(
            gradient,
            wanted[name],
            rtol=0,
            atol=tolerance * largest,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("implementation", [attention.NAME, row_attention.NAME])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_packed_row_trains_like_its_examples_one_by_one(
    family: str, implementation: str, device: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(losses, "tokens_at_once", lambda vocabulary: 4)
    monkeypatch.setattr(spread_keys, "SEEN_LONG", 6)
    batch = pack(rows())
    assert len(batch) < batch.example_tokens
    plain = model_of(family, "eager", device)
    packed = model_of(family, implementation, device)

    loss = summed_loss(packed, batch, torch.device(device), divisor=7)

    assert_same_training(packed, loss, plain, single_losses(plain, device) / 7, device)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", ["gemma2", "smollm2"])
def test_compiled_layers_train_like_plain_ones(family: str, device: str, monkeypatch: pytest.MonkeyPatch):
    """On a CPU what the compiler makes of a layer is run by torch itself, without making machine code."""
    monkeypatch.setattr(spread_keys, "SEEN_LONG", 6)  # for the kernel on a GPU
    batch = pack(rows())
    plain = model_of(family, "eager", device)
    packed = model_of(family, row_attention.NAME, device)

    assert compile_layers(packed, backend="inductor" if device == "cuda" else "aot_eager") == 2

    loss = summed_loss(packed, batch, torch.device(device))
    assert_same_training(packed, loss, plain, single_losses(plain, device), device)


def visible(batch: PackedBatch, padding: int) -> list[set[int]]:
    """What each place sees, read from the paths."""
    seen: list[set[int]] = [{place} for place in range(len(batch) + padding)]
    for branch in batch.branches:
        for length, place in enumerate(branch.path, 1):
            seen[place] = set(branch.path[:length])
    return seen


def test_one_number_a_token_says_what_the_tree_lets_it_see():
    batch = pack(rows())
    mask = row_attention.sees_its_path(torch.tensor(row_attention.subtree_ends(batch, 3)))
    places = torch.arange(len(batch) + 3)

    table = mask(places, places, places[:, None], places[None, :])

    assert [set(row.nonzero().flatten().tolist()) for row in table] == visible(batch, 3)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_the_kernel_on_a_gpu_is_given_the_functions_that_are_written_out_here(
    window: int | None, cap: float | None
):
    """Flex attention goes forward on a CPU too, with the block mask that a GPU would have."""
    torch.manual_seed(2)
    batch = pack(rows())
    padding = 128 - len(batch)
    ends = torch.tensor(row_attention.subtree_ends(batch, padding))
    positions = torch.tensor((*batch.positions, *(0,) * padding))
    mask = (
        row_attention.sees_its_path(ends)
        if window is None
        else row_attention.sees_its_window(ends, positions, window)
    )
    score = None if cap is None else row_attention.soft_cap(cap)
    query, key, value = torch.randn(1, 4, 128, 16), torch.randn(1, 2, 128, 16), torch.randn(1, 2, 128, 16)
    blocks = create_block_mask(mask, None, None, 128, 128, device="cpu")

    by_kernel = flex_attention(
        query, key, value, score_mod=score, block_mask=blocks, scale=0.3, enable_gqa=True
    )

    written_out = row_attention.written_out(query, key, value, mask, score, 0.3)
    torch.testing.assert_close(by_kernel, written_out, rtol=1e-4, atol=1e-5)


def shares_memory(result: torch.Tensor, args: tuple[Any, ...]) -> bool:
    """It is a view, as the head's own weight when it is turned for a product."""
    given = [arg for arg in args if isinstance(arg, torch.Tensor)]
    return any(arg.untyped_storage().data_ptr() == result.untyped_storage().data_ptr() for arg in given)


class LargestLogits(torch.utils._python_dispatch.TorchDispatchMode):
    """Remembers the most tokens that ever had logits in one tensor."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.tokens = vocabulary, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dim() > 1 and not shares_memory(result, args):
            rows = result.numel() // self.vocabulary if result.shape[-1] == self.vocabulary else 0
            self.tokens = max(self.tokens, rows)
        return result


def test_logits_live_for_a_piece_of_the_answers_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(head_chunks, "LOGITS_BYTES", 4 * 61 * 5)
    model = model_of("gemma2", attention.NAME, "cpu")
    batch = pack(rows())
    assert len(batch.labels) > 15

    with LargestLogits(61) as seen:
        summed_loss(model, batch, torch.device("cpu")).backward()

    assert seen.tokens == 5


class AskedFor(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts how often somebody wants a tensor's number, for which a GPU would have to finish all that it was given."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.numbers += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("implementation", [attention.NAME, row_attention.NAME])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_nobody_waits_for_a_number_between_a_rows_tokens_and_its_gradients(family: str, implementation: str):
    model, batch = model_of(family, implementation, "cpu"), pack(rows())
    inputs = row_inputs(model, batch, torch.device("cpu"))

    with AskedFor() as asked:
        summed_loss(model, batch, torch.device("cpu"), inputs=inputs).backward()

    assert asked.numbers == 0


def test_a_vocabulary_of_any_size_has_room_for_a_token():
    assert head_chunks.tokens_at_once(256_000) == 262
    assert head_chunks.tokens_at_once(10**9) == 1
