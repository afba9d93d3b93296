"""Keeps a model honest about links while its words stream by: `[n]` only for sources that exist, addresses only from
the index. Pure; text that may still become a citation or an address is held back until it is decided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from finetune_contract.sections import Passage

_ADDRESS = re.compile(
    r"(?:https?://|www\.)[^\s<>\"'\])}]+|(?<![@a-z0-9_-])(?<![a-z0-9_-]\.)(?:[a-z0-9-]+\.)+[a-z]{2,}/[^\s<>\"'\])}]*",
    re.IGNORECASE,
)
"""With a scheme or without; one without may follow a letter that no host has, as in text without spaces."""
_MARKDOWN_LINK = re.compile(r"\[([^\[\]\n]*)\]\(([^()\s]*(?:\([^()]*\)[^()\s]*)*)\)")
_CITATION = re.compile(r"[ \t]*\[(\d{1,3})\]")
_TRAILING = ".,;:!?"
_HELD_LINK_CHARACTERS = 300


class LinkFilter:
    """Feed it pieces of an answer; what comes out is safe to show."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._sources = len(passages)
        self._number_by_address = {
            passage.url: number for number, passage in reversed([*enumerate(passages, 1)])
        }
        self._known = set(self._number_by_address) | set(_addresses(passage.text for passage in passages))
        self._held = ""
        self.removed_addresses = 0
        """How many addresses the model made up."""
        self.removed_citations = 0
        """How many citations led nowhere."""

    def feed(self, piece: str) -> str:
        """The text that is decided by now."""
        self._held += piece
        cut = _undecided_from(self._held)
        decided, self._held = self._held[:cut], self._held[cut:]
        return self._cleaned(decided)

    def finish(self) -> str:
        """What was still held back. A citation or link that was cut off in the middle is dropped."""
        rest, self._held = self._held.rstrip(), ""
        return self._cleaned(re.sub(r"\s*\[(?:\d{0,3}|[^\]\n]*\]\([^)\n]*)$", "", rest))

    def _cleaned(self, text: str) -> str:
        return _ADDRESS.sub(
            self._address, _CITATION.sub(self._citation, _MARKDOWN_LINK.sub(self._link, text))
        )

    def _link(self, match: re.Match[str]) -> str:
        label, address = match.groups()
        number = self._number_by_address.get(address)
        if number is not None:
            return f"{label} [{number}]"
        if address in self._known:
            return f"{label} ({address})"
        self.removed_addresses += 1
        return label

    def _citation(self, match: re.Match[str]) -> str:
        if 1 <= int(match.group(1)) <= self._sources:
            return match.group()
        self.removed_citations += 1
        return ""

    def _address(self, match: re.Match[str]) -> str:
        address = match.group().rstrip(_TRAILING)
        if address in self._known or address.rstrip("/") in self._known or f"{address}/" in self._known:
            return match.group()
        self.removed_addresses += 1
        return match.group()[len(address) :]


def _addresses(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        for match in _ADDRESS.finditer(text):
            yield match.group().rstrip(_TRAILING)


def _undecided_from(text: str) -> int:
    """Where the part begins that later pieces may turn into a citation, a link or an address: at the latest the last
    word, for any word may be the beginning of an address."""
    cut = len(text) - len(re.split(r"\s", text)[-1])
    opened = text.rfind("[")
    if opened >= 0:
        rest = text[opened:]
        closed = rest.find("]")
        link = _MARKDOWN_LINK.match(rest)
        whole = link is not None or (0 <= closed < len(rest) - 1 and rest[closed + 1] != "(")
        end = opened + (link.end() if link is not None else closed + 1)
        held = len(rest) < _HELD_LINK_CHARACTERS and "\n" not in rest
        if (whole and cut < end) or (not whole and held):
            cut = min(cut, opened)
    return len(text[:cut].rstrip())
