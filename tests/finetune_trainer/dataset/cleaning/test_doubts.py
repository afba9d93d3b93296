"""A document that lost nearly all of its HTML is noted and named, and an ordinary one is not."""

from __future__ import annotations

import logging

import pytest

from finetune_trainer.dataset.cleaned_documents import NOTHING_LEFT, NotedDocument, clean_harvests
from finetune_trainer.dataset.cleaning.html import FEW_WORDS_LEFT, TEXT_WITHOUT_LINKS
from finetune_trainer.dataset.sources.raw_document import Harvest, RawDocument

ADDRESS = "https://mill.example/7/"
FORM = "<form>" + "<label>Name</label><input>" * 40 + "</form>"


def raw(html: str) -> RawDocument:
    return RawDocument("site", "7", "Page", "", html, "2025-01-01T00:00:00Z", "Ada", (), (), ADDRESS)


def clean(html: str):
    return clean_harvests({"site": Harvest([raw(html)])}, lambda *_, **__: None)


@pytest.mark.parametrize(
    ("html", "doubt"),
    [
        (FORM, TEXT_WITHOUT_LINKS),
        (f"<p>Few words.</p><script>{'x' * 300}</script>", FEW_WORDS_LEFT),
        ("<p>" + "word " * 60 + "</p>", ""),
    ],
)
def test_only_a_document_in_doubt_is_noted(html, doubt, caplog):
    with caplog.at_level(logging.WARNING):
        documents, dropped, noted = clean(html)

    assert (len(documents), dropped) == (1, [])
    assert noted == ([NotedDocument("site", "7", ADDRESS, doubt)] if doubt else [])
    assert (ADDRESS in caplog.text) is bool(doubt)


def test_a_document_that_is_dropped_is_not_noted_too():
    documents, dropped, noted = clean(f"<script>{'x' * 300}</script>")

    assert (documents, noted) == ([], [])
    assert [(entry.url, entry.reason) for entry in dropped] == [(ADDRESS, NOTHING_LEFT)]
