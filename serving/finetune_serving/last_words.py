"""The short text that a container leaves behind for `kubectl describe pod`; must not know what went wrong."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from finetune_contract.stage_protocol import REPORT_LIMIT_BYTES, TERMINATION_MESSAGE_PATH


def leave_last_words(message: str, path: Path | None = None) -> None:
    """Write the reason of the end where the kubelet looks for it; does nothing where there is no such file."""
    target = path or Path(os.environ.get("TERMINATION_MESSAGE_PATH", TERMINATION_MESSAGE_PATH))
    with contextlib.suppress(OSError):
        if target.exists():
            target.write_bytes(message.encode()[: REPORT_LIMIT_BYTES - 1])
