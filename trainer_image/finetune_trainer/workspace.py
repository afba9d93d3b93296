"""A folder in the place of cluster, S3 and scratch volume: what a stage is given on a laptop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.local_folder import LocalFolder


def open_workspace(
    folder: Path,
    run_name: str,
    spec: FineTuneRunSpec,
    environment: Mapping[str, str],
    stop_requested: Callable[[], bool],
) -> StageContext:
    """The context of a run in `folder`; it says nothing until a progress is put in."""
    return StageContext(
        run_name=run_name,
        spec=spec,
        work_folder=folder,
        store=LocalFolder(folder / "store"),
        progress=lambda *_, **__: None,
        environment=environment,
        on_cluster=False,
        stop_requested=stop_requested,
    )
