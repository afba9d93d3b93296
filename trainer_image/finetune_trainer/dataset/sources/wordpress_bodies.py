"""The texts of posts, as WordPress gives them: on disk while a run needs them, and kept in the store for the next.

Before cleaning, so that a new cleaning rule reaches old posts. A text is taken from the last run when its post's
date of modification is the same and it was read less than MAX_AGE ago: a shortcode, a reusable block or a plugin
changes what a post shows and leaves its date alone. Keys and tokens are taken out before anything is kept.
"""

from __future__ import annotations

import gzip
import json
import logging
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Self

from pydantic import BaseModel, ConfigDict

from finetune_trainer.dataset.cleaning.secrets import redact_secrets
from finetune_trainer.dataset.on_disk import NamelessFile, Place
from finetune_trainer.dataset.sources.harvest_memory import HarvestMemory
from finetune_trainer.dataset.sources.wordpress_api import Row, rendered

logger = logging.getLogger(__name__)

MAX_AGE = timedelta(days=7)
SAME_SECOND = timedelta(seconds=2)
"""A text that was read so soon after its edit is read once more: a second edit would have the same date."""
FIELDS = "id,modified_gmt,date_gmt,title,excerpt,content"
_FORMAT = "wordpress-bodies/1"


class Body(BaseModel):
    """One post's texts."""

    model_config = ConfigDict(frozen=True)

    id: int
    modified: str
    read: datetime
    date: str
    title: str
    excerpt: str
    content: str
    protected: bool

    @classmethod
    def of_row(cls, row: Row, now: datetime) -> Self:
        """From WordPress's JSON."""
        content = row.get("content")
        return cls(
            id=int(row["id"]),
            modified=str(row.get("modified_gmt") or ""),
            read=now.replace(microsecond=0),
            date=str(row.get("date_gmt") or ""),
            title=_without_secrets(row, "title"),
            excerpt=_without_secrets(row, "excerpt"),
            content=_without_secrets(row, "content"),
            protected=bool(content.get("protected")) if isinstance(content, dict) else False,
        )

    def holds(self, now: datetime) -> bool:
        """Whether a post with the same date of modification still has this text, as far as can be known."""
        could_change_unseen = self.modified >= (self.read - SAME_SECOND).strftime("%Y-%m-%dT%H:%M:%S")
        return now - MAX_AGE < self.read <= now and not could_change_unseen


def _without_secrets(row: Row, field: str) -> str:
    return redact_secrets(rendered(row, field))


class BodyFile:
    """Texts by number, on disk; memory holds where each begins."""

    def __init__(self, folder: Path) -> None:
        self._file = NamelessFile(folder)
        self._places: dict[int, Place] = {}
        self.protected: set[int] = set()
        """Posts whose text WordPress hides behind a password."""

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Body:
        return Body.model_validate_json(self.line(number))

    def add(self, body: Body) -> None:
        """Write one more, in the place of one with the same number."""
        if body.protected:
            self.protected.add(body.id)
        self._places[body.id] = self._file.append(body.model_dump_json().encode())

    def numbers(self) -> list[int]:
        """Of all of them, in order."""
        return sorted(self._places)

    def line(self, number: int) -> bytes:
        """A text as JSON."""
        return self._file.read(self._places[number])


def recall(
    memory: HarvestMemory, identity: str, reader: str, modified: Mapping[int, str], now: datetime
) -> tuple[BodyFile, int]:
    """The kept texts that still hold for posts with these dates of modification, and how many were kept in all.

    `reader` says as whom the site is read: a member's text is not for a visitor's run.
    """
    kept = 0
    bodies = BodyFile(memory.folder)
    path = memory.recall(identity)
    if path is None:
        return bodies, kept
    try:
        with gzip.open(path) as lines:
            head = json.loads(lines.readline())
            if not isinstance(head, dict) or head.get("format") != _FORMAT:
                raise ValueError("another format")
            if head.get("reader") != reader:
                logger.info("everything is read anew, because the site is read as somebody else")
                return bodies, kept
            for line in lines:
                kept += 1
                body = Body.model_validate_json(line)
                if modified.get(body.id) == body.modified and body.holds(now):
                    bodies.add(body)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        # The checksum stands at the end, so what came before the damage is not to be trusted either.
        logger.warning(
            "what was read last cannot be used, and everything is read anew: fact=%s", type(error).__name__
        )
        return BodyFile(memory.folder), 0
    finally:
        path.unlink(missing_ok=True)
    return bodies, kept


class NextTime:
    """The file that the next run recalls. Texts are packed while others are still on their way: at the end hardly
    anything is left to do. Use it as a context manager; without a store it does nothing."""

    def __init__(self, memory: HarvestMemory, identity: str, reader: str, bodies: BodyFile) -> None:
        """`bodies` may grow meanwhile; `identity` and `reader` as in recall."""
        self._memory, self._identity, self._reader, self._bodies = memory, identity, reader, bodies
        self._packed: set[int] = set()
        self._open = ExitStack()
        self._file: gzip.GzipFile | None = None
        self._raw: IO[bytes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def catch_up(self) -> None:
        """Pack the texts that are there and not packed yet."""
        if self._memory.store is None:
            return
        if self._file is None:
            raw = tempfile.NamedTemporaryFile(dir=self._memory.folder)  # noqa: SIM115 - closed by __exit__
            self._raw = self._open.enter_context(raw)
            self._file = self._open.enter_context(gzip.GzipFile("", "wb", 1, raw, mtime=0))
            self._file.write(json.dumps({"format": _FORMAT, "reader": self._reader}).encode() + b"\n")
        for number in self._bodies.numbers():
            if number not in self._packed:
                self._file.write(self._bodies.line(number) + b"\n")
                self._packed.add(number)

    def keep(self) -> None:
        """Put the file in the place of the last one."""
        self.catch_up()
        if self._file is not None:
            self._file.close()
            self._raw.flush()
            self._memory.keep(self._identity, Path(self._raw.name))
