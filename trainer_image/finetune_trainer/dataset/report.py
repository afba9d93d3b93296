"""The dataset's page for people: counts, what was dropped and why, and rows to read. One file, no network, no times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from finetune_contract.artifacts import Document, Example
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.examples.draft import stable_order
from finetune_trainer.dataset.sources.raw_document import DroppedDocument
from finetune_trainer.dataset.summary import summarise

SAMPLES_PER_KIND = 6


def render_report(
    documents: Sequence[Document],
    dropped: Sequence[DroppedDocument],
    training: Sequence[Example],
    evaluation: Sequence[Example],
    left_out: Mapping[str, int],
    digest: str,
) -> str:
    """HTML; everything that came from a source is escaped."""
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = files("finetune_trainer.dataset").joinpath("report_template.html").read_text(encoding="utf-8")
    roots = Counter(
        document.post_categories[0] if document.post_categories else "none" for document in documents
    )
    return template.from_string(source).render(
        digest=digest,
        documents=len(documents),
        words=sum(len(document.post_content.split()) for document in documents),
        roots=sorted(roots.items()),
        sides=[("Training", summarise(training)), ("Evaluation", summarise(evaluation))],
        training=len(training),
        evaluation=len(evaluation),
        dropped=dropped,
        left_out=sorted(left_out.items()),
        samples=[(kind.value, _samples(training, kind)) for kind in ExampleKind],
        evaluation_samples=_samples(evaluation, None),
    )


def _samples(examples: Sequence[Example], kind: ExampleKind | None) -> list[Example]:
    rows = [example for example in examples if kind is None or example.kind == kind]
    return sorted(rows, key=lambda example: stable_order("sample", example.id))[:SAMPLES_PER_KIND]
