"""One download of a model at a time over all that share a store, and what of it is there already.

A small object beside the copy says who is at work, with a beat that goes on while he lives, and which files are
whole. Two who come in the same instant may both copy: that costs bandwidth and nothing else, for both write the same.
Must not know where the files come from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from finetune_contract.artifacts import MANIFEST_NAME, FileEntry
from finetune_trainer.errors import StoreUnavailable
from finetune_trainer.stores.store import Store

logger = logging.getLogger(__name__)

RECORD_NAME = "copying.json"
BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
"""Without a beat for so long he is taken for dead; measured with the clock of who waits."""
ASK_SECONDS = 5.0


class CopyRecord(BaseModel):
    """What lies in the store while a copy is made."""

    holder: str = ""
    """Empty when nobody is at work."""
    beat: int = 0
    files: list[FileEntry] = []
    """Whole in the store."""


class SharedCopy:
    """The copy that grows at `key`."""

    def __init__(
        self,
        store: Store,
        key: str,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._key = store, key
        self._sleep, self._clock = sleep, clock
        self._record = CopyRecord(holder=uuid4().hex)
        self._lock = threading.Lock()

    def claim(self, still_waiting: Callable[[], None]) -> None:
        """Come back when the copy is done by another, or ours to go on with. `still_waiting` may end it by raising."""
        seen: tuple[str, int] | None = None
        since = self._clock()
        while True:
            found = self._read()
            if found is None or not found.holder or self._is_done():
                break
            if (found.holder, found.beat) != seen:
                seen, since = (found.holder, found.beat), self._clock()
            elif self._clock() - since >= SILENT_SECONDS:
                logger.warning("who copied the base model is silent; it is taken over: key=%s", self._key)
                break
            still_waiting()
            self._sleep(ASK_SECONDS)
        self._record.files = list(found.files) if found is not None else []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Ours while this lasts; afterwards the record is gone, or left to the next one when the copy is not done."""
        over = threading.Event()
        heart = threading.Thread(target=self._beat_until, args=(over,), daemon=True)
        self._write()
        heart.start()
        try:
            yield
        finally:
            over.set()
            heart.join()
            with suppress(StoreUnavailable):
                self._leave()

    def files_there(self) -> dict[str, FileEntry]:
        """By path: what an earlier attempt stored, as far as it still lies there."""
        keys = set(self._store.list(f"{self._key}/"))
        return {entry.path: entry for entry in self._record.files if f"{self._key}/{entry.path}" in keys}

    def add(self, entry: FileEntry) -> None:
        """This file is whole now."""
        with self._lock:
            self._record.files = [*(file for file in self._record.files if file.path != entry.path), entry]
        self._write()

    def _leave(self) -> None:
        if self._is_done():
            self._store.delete([f"{self._key}/{RECORD_NAME}"])
        else:
            self._record.holder = ""
            self._write()

    def _is_done(self) -> bool:
        return self._store.read(f"{self._key}/{MANIFEST_NAME}") is not None

    def _beat_until(self, over: threading.Event) -> None:
        while not over.wait(BEAT_SECONDS):
            with suppress(StoreUnavailable):
                self._write()

    def _read(self) -> CopyRecord | None:
        content = self._store.read(f"{self._key}/{RECORD_NAME}")
        if content is None:
            return None
        try:
            return CopyRecord.model_validate_json(content)
        except ValidationError:
            return None

    def _write(self) -> None:
        with self._lock:
            self._record.beat += 1
            content = self._record.model_dump_json().encode()
            self._store.write(f"{self._key}/{RECORD_NAME}", content)
