"""What the language model said, kept in the store, so that asking again costs nothing.

Answers lie in small files named by their own digest: nothing is rewritten, and two runs cannot lose each other's.
What is kept is the answer as it came; checks that become stricter apply to it without another request.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping

from finetune_contract.artifact_layout import generated_folder
from finetune_trainer.stores.store import Store

logger = logging.getLogger(__name__)

ANSWERS_PER_FILE = 50


class KeptAnswers:
    """Answers by key, of one model asked in one way."""

    def __init__(self, store: Store, model: str, temperature: float, instruction: str) -> None:
        self._store = store
        self._way = json.dumps([model, temperature, instruction])
        self._folder = generated_folder(hashlib.sha256(self._way.encode()).hexdigest())
        self._answers: dict[str, str] = {}
        self._unsaved: dict[str, str] = {}

    def is_any_stored(self) -> bool:
        """Whether an earlier run kept something."""
        return bool(self._store.list(self._folder + "/"))

    def load(self) -> None:
        """Read what earlier runs kept; lines that cannot be read are asked for again."""
        for name in self._store.list(self._folder + "/"):
            for line in (self._store.read(name) or b"").splitlines():
                try:
                    self._answers.update(_entry(json.loads(line)))
                except ValueError:
                    logger.warning(
                        "a kept answer cannot be read and is asked for again: uri=%s", self._store.uri(name)
                    )

    def key(self, section: str) -> str:
        """Identity of the question: model, wording and section."""
        return hashlib.sha256(f"{self._way}\n{section}".encode()).hexdigest()

    def get(self, key: str) -> str | None:
        """The answer; None when it was never given."""
        return self._answers.get(key)

    def add(self, key: str, answer: str) -> None:
        """Keep an answer; it is in the store after the next save."""
        self._answers[key] = self._unsaved[key] = answer
        if len(self._unsaved) >= ANSWERS_PER_FILE:
            self.save()

    def save(self) -> None:
        """Write what is new."""
        if not self._unsaved:
            return
        lines = "".join(
            json.dumps({"key": key, "answer": answer}) + "\n" for key, answer in sorted(self._unsaved.items())
        ).encode()
        self._store.write(f"{self._folder}/{hashlib.sha256(lines).hexdigest()}.jsonl", lines)
        self._unsaved.clear()


def _entry(line: object) -> Mapping[str, str]:
    if not isinstance(line, dict) or not all(isinstance(line.get(name), str) for name in ("key", "answer")):
        raise ValueError("no kept answer")
    return {line["key"]: line["answer"]}
