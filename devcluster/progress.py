"""Tells the reader on stderr what happens, what it is for and how long it took. Knows no part."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """One line when a step begins, one when it ends; on a terminal a moving line in between."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._began = time.monotonic()
        self._moving = False
        self._one_writer = threading.RLock()

    @contextmanager
    def step(self, part: str, purpose: str) -> Iterator[None]:
        """Announces a step, then its seconds; when it fails, that it failed."""
        began = time.monotonic()
        self.say(part, f"{purpose} ...")
        try:
            yield
        except BaseException:
            self.say(part, f"failed after {time.monotonic() - began:.1f} s: {purpose}")
            raise
        self.say(part, f"done in {time.monotonic() - began:.1f} s: {purpose}")

    def say(self, part: str, fact: str) -> None:
        """One finished fact."""
        with self._one_writer:
            self._clear()
            print(
                f"[{time.monotonic() - self._began:6.1f} s] {part:<10} {fact}", file=self._stream, flush=True
            )

    def moving(self, part: str, fact: str) -> None:
        """A fact that the next one replaces; without a terminal it is a line of its own."""
        if not self._stream.isatty():
            self.say(part, fact)
            return
        with self._one_writer:
            self._clear()
            self._stream.write(f"\r[{time.monotonic() - self._began:6.1f} s] {part:<10} {fact}"[:118])
            self._stream.flush()
            self._moving = True

    def _clear(self) -> None:
        if self._moving:
            self._stream.write("\r\x1b[K")
            self._moving = False
