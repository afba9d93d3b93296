"""A site of four short documents, and what is made of it."""

from __future__ import annotations

import pytest

from finetune_contract.artifacts import Document
from finetune_trainer.dataset.examples.corpus import Corpus

CONTENT = {
    "Ticket prices": "One ticket is for all.\n\n"
    "## What does a winter ticket cost?\n\nAdults pay £7.40 in the winter months. "
    "Children come in free.\n\n## Gift vouchers\n\nGift vouchers stay valid for three years. See [prices](http://s/p).",
    "Opening hours": ""
    "## When does the mill open in summer?\n\nThe mill opens at 09:40 in summer and shuts at 17:20.\n\n"
    "## Opening hours in winter\n\nIn winter the mill is open from 10:15 to 15:45.",
    "Dressing the stones": "## Who dresses the stones?\n\nStone dresser Caspian Ruddle cuts the stones of the mill.\n\n"
    "## What is a mill bill?\n\nA mill bill is a double-ended steel chisel.",
    "Bat walks at dusk": "## What does a bat walk cost?\n\nA place on a bat walk costs £6.80 with cocoa.\n\n"
    "## Bats at the mill\n\nFive species of bat roost at the mill.\n\n- Natterer's bat",
}  # fmt: skip


@pytest.fixture
def corpus() -> Corpus:
    return Corpus(
        [
            Document(
                source="site",
                post_id=str(number),
                post_title=title,
                post_excerpt="",
                post_content=content,
                post_date="2025-01-01T00:00:00Z",
                post_author="",
                post_categories=[],
                post_tags=[],
                post_url=f"http://s/{number}",
            )
            for number, (title, content) in enumerate(CONTENT.items())
        ]
    )
