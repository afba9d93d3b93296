"""Search in the documents.jsonl of a run, for a laptop without Weaviate. Reads the file when first asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetune_chat.answering.errors import IndexUnavailable
from finetune_chat.answering.retrieve import FoundDocument
from finetune_contract.artifacts import Document
from finetune_contract.sections import Passage, PassageIndex


@dataclass(frozen=True)
class _Loaded:
    modified_ns: int
    documents: dict[str, FoundDocument]
    index: PassageIndex


class DocumentsFileIndex:
    """All documents of a file in memory; a changed file is read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loaded: _Loaded | None = None

    async def search(self, text: str, limit: int) -> Sequence[FoundDocument]:
        try:
            modified = self._path.stat().st_mtime_ns
            if self._loaded is None or self._loaded.modified_ns != modified:
                self._loaded = await asyncio.to_thread(self._load, modified)
        except (OSError, ValidationError) as error:
            raise IndexUnavailable(
                f"{self._path}: {type(error).__name__}; expected the documents.jsonl of a run, one document a line"
            ) from error
        ranked = self._loaded.index.rank(text, limit=4 * limit)
        urls = list(dict.fromkeys(passage.url for passage, _ in ranked))[:limit]
        return [self._loaded.documents[url] for url in urls]

    async def close(self) -> None:
        self._loaded = None

    def _load(self, modified_ns: int) -> _Loaded:
        # not splitlines of text: U+2028 ends a line there, and stands as it is in JSON
        lines = self._path.read_bytes().split(b"\n")
        rows = [Document.model_validate_json(line) for line in lines if line.strip()]
        return _Loaded(
            modified_ns,
            {row.post_url: FoundDocument(row.post_title, row.post_url, row.post_content) for row in rows},
            PassageIndex([Passage(row.post_title, "", row.post_content, row.post_url) for row in rows]),
        )
