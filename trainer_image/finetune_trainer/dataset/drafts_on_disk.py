"""All drafts of a build, sorted on disk: there are many times more of them than rows in the dataset.

A database holds what decides about a draft; the drafts themselves lie in a file. Neither has a name: both go with their
last user. Knows nothing of shares and sides.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune_contract.artifacts import Example
from finetune_trainer.dataset.examples.draft import Draft
from finetune_trainer.dataset.examples.phrasing import normalised
from finetune_trainer.dataset.examples.places import stable_order
from finetune_trainer.dataset.on_disk import NamelessFile, Place

CACHE_KILOBYTES = 16_384
_TABLES = (
    "CREATE TABLE draft (pile TEXT, round INTEGER, family TEXT, id TEXT, number INTEGER, url TEXT, prompt INTEGER, "
    "question INTEGER, start INTEGER, size INTEGER, PRIMARY KEY (pile, round, family, id, number)) WITHOUT ROWID",
    "CREATE TABLE hash (name TEXT, value INTEGER, PRIMARY KEY (name, value)) WITHOUT ROWID",
    "CREATE TABLE kept (name TEXT, value INTEGER, number INTEGER, question TEXT, "
    "PRIMARY KEY (name, value, number)) WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True)
class Card:
    """What decides about a draft."""

    url: str
    """Of its document."""
    prompt: int
    """A hash of the prompt as it is compared."""
    question: int
    """The same of the question; see question_hash."""
    place: Place


class DraftsOnDisk:
    """Drafts in piles by name. Each pile is sorted: round by round, shuffled inside a round, families together."""

    def __init__(self, seed: int, folder: Path | None = None) -> None:
        """`seed` shuffles; `folder` is made when it is missing, None is the system's own."""
        self._seed = str(seed)
        self._file = NamelessFile(folder)
        self._count = self._count_kept = 0
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".sqlite") as named:
            self._database = sqlite3.connect(named.name, isolation_level=None)
            for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KILOBYTES}"):
                self._database.execute(f"PRAGMA {pragma}")
            for table in _TABLES:
                self._database.execute(table)
            self._database.execute("BEGIN")  # and never a COMMIT: nobody else reads it
        weakref.finalize(self, self._database.close)

    def __len__(self) -> int:
        return self._count

    def add(self, piles: tuple[str, str], drafts: Iterable[Draft], at_once: int = 1) -> None:
        """Write drafts as they come.

        Args:
            piles: for those that may be taught, and for the reserved ones.
            drafts: of one kind.
            at_once: rounds of the first pile that are taken as one.
        """
        self._database.executemany(
            "INSERT INTO draft VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self._line(piles, draft, at_once) for draft in drafts),
        )

    def cards(self, pile: str) -> Iterator[Card]:
        """A pile in its order."""
        lines = self._database.execute(
            "SELECT url, prompt, question, start, size FROM draft WHERE pile = ? "
            "ORDER BY round, family, id, number",
            (pile,),
        )
        for url, prompt, question, start, size in lines:
            yield Card(url, prompt, question, (start, size))

    def example(self, card: Card) -> Example:
        """The draft's example."""
        return Example.model_validate_json(self._file.read(card.place))

    def is_new(self, name: str, value: int) -> bool:
        """Whether a set of hashes did not hold this one; now it does."""
        return self._database.execute("INSERT OR IGNORE INTO hash VALUES (?, ?)", (name, value)).rowcount == 1

    def holds(self, name: str, value: int) -> bool:
        """Whether a set of hashes holds this one."""
        found = self._database.execute("SELECT 1 FROM hash WHERE name = ? AND value = ?", (name, value))
        return found.fetchone() is not None

    def keep(self, name: str, value: int, question: str) -> None:
        """Put a question with others under a hash."""
        self._count_kept += 1
        self._database.execute(
            "INSERT INTO kept VALUES (?, ?, ?, ?)", (name, value, self._count_kept, question)
        )

    def kept(self, name: str, value: int) -> list[str]:
        """The questions under a hash."""
        found = self._database.execute(
            "SELECT question FROM kept WHERE name = ? AND value = ?", (name, value)
        )
        return [question for (question,) in found]

    def _line(self, piles: tuple[str, str], draft: Draft, at_once: int) -> tuple[object, ...]:
        example = draft.example
        self._count += 1
        return (
            piles[draft.reserved],
            draft.round if draft.reserved else draft.round // at_once,
            stable_order(self._seed, draft.family),
            example.id,
            self._count,
            example.document_url,
            question_hash("\n".join(message.content for message in example.prompt)),
            question_hash(example.question),
            *self._file.append(example.model_dump_json().encode()),
        )


def question_hash(text: str) -> int:
    """The same for texts that are equal once they are normalised; 64 bits, with a sign."""
    return hash_of(normalised(text))


def hash_of(text: str) -> int:
    """64 bits, with a sign, as the database holds them."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)
