"""Places that documents come from: one file a kind, and this table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from finetune_contract.run_spec import SourceSpec
from finetune_trainer.dataset.sources.harvest_memory import HarvestMemory
from finetune_trainer.dataset.sources.markdown import open_markdown
from finetune_trainer.dataset.sources.raw_document import Harvest
from finetune_trainer.dataset.sources.weaviate import open_weaviate
from finetune_trainer.dataset.sources.website import open_website
from finetune_trainer.dataset.sources.wordpress import open_wordpress
from finetune_trainer.run_log import Progress


class Source(Protocol):
    """A place that documents come from. `check` and `read` raise SourceRejected or SourceUnavailable."""

    def remember_in(self, memory: HarvestMemory) -> None:
        """Use its scratch folder, and what it holds of an earlier run if that saves requests; before the first read."""

    def check(self) -> None:
        """Prove address and credentials before anything is read."""

    def read(self, progress: Progress) -> Harvest:
        """Read everything."""


OpenSource = Callable[[SourceSpec, Mapping[str, str], bool], Source]
"""(spec, environment, credentials_required) -> source; opens no connection."""

SOURCES: dict[str, OpenSource] = {
    "wordpress": open_wordpress,
    "website": open_website,
    "markdown": open_markdown,
    "weaviate": open_weaviate,
}
"""By the name of the field in SourceSpec."""


def open_source(
    spec: SourceSpec,
    environment: Mapping[str, str],
    credentials_required: bool,
    memory: HarvestMemory | None = None,
) -> Source:
    """The source that a spec names; the contract has seen to it that there is exactly one."""
    kind = next(kind for kind in SOURCES if getattr(spec, kind) is not None)
    source = SOURCES[kind](spec, environment, credentials_required)
    if memory is not None:
        source.remember_in(memory)
    return source
