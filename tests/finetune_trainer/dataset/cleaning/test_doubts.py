"""A document that lost nearly all of its HTML is named in the log, and an ordinary one is not."""

from __future__ import annotations

import logging

import pytest

from finetune_trainer.dataset.build import clean
from finetune_trainer.dataset.sources.raw_document import RawDocument


def raw(html: str) -> RawDocument:
    return RawDocument(
        "site", "7", "Page", "", html, "2025-01-01T00:00:00Z", "Ada", (), (), "https://mill.example/7/"
    )


@pytest.mark.parametrize(
    ("html", "is_named"),
    [
        ("<form>" + "<label>Name</label><input>" * 40 + "</form>", True),
        ("<p>" + "word " * 60 + "</p>", False),
    ],
)
def test_only_a_document_in_doubt_is_named(html, is_named, caplog):
    with caplog.at_level(logging.WARNING):
        clean(raw(html))

    assert ("https://mill.example/7/" in caplog.text) is is_named
