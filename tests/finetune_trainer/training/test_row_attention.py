from __future__ import annotations

import random

import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from finetune_trainer.training.row_attention import path_blocks, sees_its_path


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


@pytest.mark.parametrize("block", [64, 128])
@pytest.mark.parametrize("seed", range(12))
def test_blocks_are_those_that_a_look_at_every_pair_of_tokens_finds(seed: int, block: int):
    numbers = random.Random(seed)  # noqa: S311 - a tree, not a secret
    length = 128 * numbers.randint(1, 8) - numbers.choice((0, 0, 5, 77))
    ends = torch.tensor(ends_of_a_tree(length, numbers))
    mask = sees_its_path(ends)
    expected = create_block_mask(mask, None, None, length, length, device="cpu", BLOCK_SIZE=block)

    found = path_blocks(ends, mask, block)

    assert named(found) == named(expected)
    assert found.shape == expected.shape
    assert torch.equal(found.to_dense(), expected.to_dense())
