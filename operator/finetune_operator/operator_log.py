"""How log lines look: text for people, JSON for collectors. Must not know who logs.

A JSON line about a run has the run as a field of its own: the one that it names, or the one that is being looked at.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from finetune_operator.observed import RunKey

_looked_at: ContextVar[RunKey | None] = ContextVar("run that is looked at", default=None)


@contextmanager
def about(key: RunKey) -> Iterator[None]:
    """What is logged meanwhile, in tasks begun meanwhile as well, is about this run."""
    token = _looked_at.set(key)
    try:
        yield
    finally:
        _looked_at.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        run = _run_of(record)
        if run is not None:
            line["run"] = str(run)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _run_of(record: logging.LogRecord) -> RunKey | None:
    named = record.args if isinstance(record.args, tuple) else ()
    return next((value for value in named if isinstance(value, RunKey)), _looked_at.get())


def set_up(level: str, form: str) -> None:
    """Send all logging to stderr in one form; third parties only from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("finetune_operator").setLevel(level)
