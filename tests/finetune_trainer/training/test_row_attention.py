from __future__ import annotations

import random

import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from finetune_trainer.training import spread_keys
from finetune_trainer.training.row_attention import (
    filled_length,
    path_blocks,
    sees_its_path,
    sees_its_window,
    written_out,
)
from finetune_trainer.training.spread_keys import COPIES, SLOTS, SpreadKeys, with_copies


def ends_of_a_tree(length: int, numbers: random.Random) -> list[int]:
    """Stretches within stretches, some shorter than a block and some longer."""
    ends = list(range(1, length + 1))

    def fill(start: int, end: int) -> None:
        while start < end:
            stretch = min(end, start + numbers.choice((1, 9, 200, 700)))
            trunk = min(stretch, start + numbers.randint(1, 150))
            ends[start:trunk] = [stretch] * (trunk - start)
            if trunk < stretch:
                fill(trunk, stretch)
            start = stretch

    fill(0, length - numbers.randint(0, 60))
    return ends


def named(blocks: BlockMask) -> list[tuple[set[int], set[int]]]:
    """For every block of the row, which it sees in part and which as a whole."""
    found = []
    for row in range(blocks.kv_num_blocks.shape[-1]):
        partly = blocks.kv_indices[0, 0, row, : blocks.kv_num_blocks[0, 0, row]].tolist()
        whole = blocks.full_kv_indices[0, 0, row, : blocks.full_kv_num_blocks[0, 0, row]].tolist()  # type: ignore[index]
        found.append((set(partly), set(whole)))
    return found


def spread(ends: list[int], monkeypatch: pytest.MonkeyPatch) -> SpreadKeys:
    monkeypatch.setattr(spread_keys, "SEEN_LONG", 100)
    return spread_keys.spread_keys(ends, torch.device("cpu"))


@pytest.mark.parametrize("block", [64, 128])
@pytest.mark.parametrize("seed", range(12))
def test_blocks_are_those_that_a_look_at_every_pair_of_tokens_finds(
    seed: int, block: int, monkeypatch: pytest.MonkeyPatch
):
    numbers = random.Random(seed)  # noqa: S311 - a tree, not a secret
    length = 128 * numbers.randint(1, 8)
    keys = spread(ends_of_a_tree(length, numbers), monkeypatch)

    found = path_blocks(keys, block)

    sizes = (None, None, length, length + COPIES * SLOTS)
    expected = create_block_mask(found.mask_mod, *sizes, device="cpu", BLOCK_SIZE=block)

    assert named(found) == named(expected)
    assert found.shape == expected.shape
    assert torch.equal(found.to_dense(), expected.to_dense())


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("window", [None, 150])
@pytest.mark.parametrize("block", [64, 128])
@pytest.mark.parametrize("seed", range(4))
def test_the_kernel_sees_with_copies_what_the_written_out_functions_see_without(
    seed: int, block: int, window: int | None, monkeypatch: pytest.MonkeyPatch
):
    """Flex attention goes forward on a CPU too, with the block mask that a GPU would have."""
    numbers = random.Random(seed)  # noqa: S311 - a tree, not a secret
    torch.manual_seed(seed)
    length = 128 * numbers.randint(2, 6)
    row_ends = ends_of_a_tree(length, numbers)
    ends, positions = torch.tensor(row_ends), torch.tensor(depths(row_ends))
    keys = spread(row_ends, monkeypatch)
    assert (keys.ends[:length] < ends).any()
    plain = sees_its_path(ends) if window is None else sees_its_window(ends, positions, window)
    query, key, value = (torch.randn(1, heads, length, 16) for heads in (4, 2, 2))
    expected = written_out(query, key, value, plain, None, None)

    found = flex_attention(
        query,
        with_copies(key, keys.slots),
        with_copies(value, keys.slots),
        block_mask=path_blocks(keys, block, positions if window else None, window or 0),
        enable_gqa=True,
    )

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def depths(ends: list[int]) -> list[int]:
    """How many tokens stand before each on its way from the root."""
    return [sum(1 for before in range(place) if ends[before] > place) for place in range(len(ends))]


def test_a_spread_tokens_gradient_is_the_sum_over_its_copies(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(1)
    keys = spread([256] * 3 + list(range(4, 257)), monkeypatch)
    rows = torch.randn(1, 2, 256, 8, dtype=torch.float64, requires_grad=True)

    torch.autograd.gradcheck(lambda given: with_copies(given, keys.slots), rows, fast_mode=True)

    weights = torch.randn(256 + COPIES * SLOTS, dtype=torch.float64)
    (with_copies(rows, keys.slots) * weights[:, None]).sum().backward()
    assert rows.grad is not None
    for place in range(3):
        total = weights[keys.places == place].sum()
        torch.testing.assert_close(rows.grad[0, 0, place], total.expand(8))


def test_the_tokens_that_are_seen_longest_are_spread_and_no_more_than_there_is_room_for():
    ends = [2048 + SLOTS * 2] * (SLOTS + 20) + list(range(SLOTS + 21, 2048 + SLOTS * 2 + 1))

    keys = spread_keys.spread_keys(ends, torch.device("cpu"))

    assert sorted(keys.slots.tolist()) == list(range(SLOTS))
    assert keys.ends[:SLOTS].tolist() == list(range(SLOTS))
    assert keys.ends[SLOTS : len(ends)].tolist() == ends[SLOTS:]


@pytest.mark.parametrize("block", [64, 128])
def test_with_many_heads_of_keys_nothing_is_spread(block: int):
    ends = ends_of_a_tree(640, random.Random(2))  # noqa: S311 - a tree, not a secret
    keys = spread_keys.spread_keys(ends, torch.device("cpu"), heads=32)
    rows = torch.randn(1, 32, 640, 8)

    found = path_blocks(keys, block)

    expected = create_block_mask(
        sees_its_path(torch.tensor(ends)), None, None, 640, 640, device="cpu", BLOCK_SIZE=block
    )
    assert with_copies(rows, keys.slots) is rows
    assert named(found) == named(expected)


def test_in_a_row_without_such_tokens_nobody_sees_a_copy():
    keys = spread_keys.spread_keys(list(range(1, 257)), torch.device("cpu"))

    blocks = path_blocks(keys, 128)

    assert keys.slots.unique().numel() == SLOTS
    assert named(blocks) == [({0}, set()), ({1}, set())]


def test_rows_are_filled_up_to_whole_blocks_and_no_further():
    assert [filled_length(tokens) for tokens in (1, 127, 128, 129, 8001)] == [128, 128, 128, 256, 8064]
