"""What every stage is given: the run, where to work, where to keep, whom to tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.stage_protocol import StageReport
from finetune_trainer.run_log import Progress
from finetune_trainer.stores.store import Store


@dataclass(frozen=True)
class StageContext:
    """Values only; nothing is opened before a stage asks."""

    run_name: str
    spec: FineTuneRunSpec
    work_folder: Path
    """Scratch space, empty or with what an earlier attempt on the same disk left."""
    store: Store
    progress: Progress
    environment: Mapping[str, str] = field(repr=False)
    """Credentials by the names of finetune_contract.stage_protocol."""
    on_cluster: bool = True
    """False on a laptop: the knowledge base is then a local file and Weaviate is not asked."""
    run_key: str = ""
    """Known after the dataset stage."""
    dataset_digest: str = ""
    """Known after the dataset stage."""
    stop_requested: Callable[[], bool] = lambda: False
    """True once SIGTERM came: checkpoint and raise Preempted."""


StageFunction = Callable[[StageContext], StageReport]
