"""What a source may remember between runs: one file for each site, in the store. Knows no format.

The file only saves requests: without it, or when it cannot be read, everything is read anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from finetune_contract.artifact_layout import harvest_file
from finetune_trainer.stores.store import Store


@dataclass(frozen=True)
class HarvestMemory:
    """Without a store nothing is remembered."""

    folder: Path
    """Scratch space; made when it is needed."""
    store: Store | None = None

    def recall(self, identity: str) -> Path | None:
        """A copy of the file that was kept under this name, for the caller to delete; None when there is none."""
        key = _key(identity)
        if self.store is None or key not in self.store.list(key):
            return None
        path = self.folder / f"recalled-{Path(key).parent.name}"
        self.store.download(key, path)
        return path

    def keep(self, identity: str, path: Path) -> None:
        """Put the file in the place of the one before; whole or not at all."""
        if self.store is not None:
            self.store.upload(_key(identity), path)


def _key(identity: str) -> str:
    return harvest_file(hashlib.sha256(identity.encode()).hexdigest())
