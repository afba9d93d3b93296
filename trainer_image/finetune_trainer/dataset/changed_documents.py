"""How many documents came, went or changed since a dataset that is stored. Holds a hash of each, not its text."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune_contract.artifact_layout import DOCUMENTS_FILE, dataset_folder
from finetune_contract.artifacts import Document
from finetune_trainer.dataset.built_dataset import json_lines
from finetune_trainer.stores.store import Store

logger = logging.getLogger(__name__)

Identity = tuple[str, str]
"""Source and post id."""


def count_changed_documents(store: Store, digest: str, documents: Iterable[Document], scratch: Path) -> int:
    """Against the dataset of that digest; every document counts where it is not stored any more."""
    now = dict(_hashed(json_lines(documents)))
    key = f"{dataset_folder(digest)}/{DOCUMENTS_FILE}"
    if key not in store.list(key):
        logger.warning("the dataset to compare with is not in the store: digest=%s", digest)
        return len(now)
    path = scratch / "compared-documents.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    store.download(key, path)
    try:
        with path.open("rb") as lines:
            before = dict(_hashed(lines))
    finally:
        path.unlink()
    return sum(before.get(one) != now.get(one) for one in before.keys() | now.keys())


def _hashed(lines: Iterable[bytes]) -> Iterator[tuple[Identity, bytes]]:
    for line in lines:
        document = json.loads(line)
        yield (document["source"], document["postId"]), hashlib.sha256(line).digest()
