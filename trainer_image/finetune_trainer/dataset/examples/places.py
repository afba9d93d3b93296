"""What identifies a document wherever its site is served: the name of its source, and the path of its address.

The order of rows hangs on this and not on scheme and host. The same posts then give the same rows in the same order on
a laptop, in a cluster, and after a site has moved.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from finetune_contract.artifacts import Document
from finetune_contract.sections import Passage


class Places:
    """The place of every document of a site, by its address."""

    def __init__(self, documents: Iterable[Document]) -> None:
        places = {document.post_url: _place(document) for document in documents}
        counts = Counter(places.values())
        self._places = {url: place if counts[place] == 1 else url for url, place in places.items()}

    def of(self, url: str) -> str:
        """Source and path, with the query that plain permalinks have; the whole address where a source has the path
        on two hosts, or does not know it."""
        return self._places.get(url, url)

    def family(self, passages: Sequence[Passage]) -> str:
        """The same for the same passages in any order; empty without passages."""
        return stable_order(*sorted(f"{self.of(p.url)} {p.heading}" for p in passages)) if passages else ""

    def in_one_order(self, passages: Sequence[Passage]) -> list[Passage]:
        """The passages in an order that tells nothing about which one holds the answer, and that is the same for every
        question about them: what their prompts have in common is then computed once."""
        family = self.family(passages)
        return sorted(
            passages, key=lambda passage: stable_order(family, self.of(passage.url), passage.heading)
        )


def stable_order(*parts: str) -> str:
    """A key that shuffles, and shuffles the same way on every machine."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def _place(document: Document) -> str:
    address = urlsplit(document.post_url)
    query = f"?{address.query}" if address.query else ""
    return f"{document.source} {address.path}{query}"
