"""Where people's corrections lie: spec.dataset.reviewFile, a key in the store, or on a laptop a file."""

from __future__ import annotations

from pathlib import Path

from finetune_trainer.dataset.review_sheet import Judgement, read_sheet
from finetune_trainer.errors import DataRejected
from finetune_trainer.stage_context import StageContext

REVIEW_PLACE = "spec.dataset.reviewFile"


def read_review_file(context: StageContext) -> list[Judgement]:
    """What the sheet of the spec says; empty without one.

    Raises:
        DataRejected: there is no such file, or it is no sheet.
    """
    name = context.spec.dataset.review_file
    if not name:
        return []
    content: bytes | None = None
    if not context.on_cluster and Path(name).is_file():
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise DataRejected(f"{REVIEW_PLACE}: {name} cannot be read ({error.strerror})") from error
    if content is None:
        content = context.store.read(name)
    if content is None:
        looked = context.store.uri(name)
        if not context.on_cluster:
            looked = f"{Path(name).resolve()} or {looked}"
        raise DataRejected(
            f"{REVIEW_PLACE}: there is no {looked}; put the sheet there, or leave reviewFile out"
        )
    return read_sheet(content, f"{REVIEW_PLACE}: {name}")
