"""The dataset stage: sources -> clean -> knowledge base -> snapshot -> examples -> split -> store.

What can be refused is refused before anything is read; what only the documents tell is refused before the knowledge
base or the store is changed: the examples are made first, and again if the snapshot is not what was cleaned. The same
documents give the same bytes.
Must not know how a source is read, a question asked, or a file stored.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from finetune_contract.artifact_layout import dataset_folder
from finetune_contract.artifacts import Document, Example
from finetune_contract.run_key import run_key
from finetune_contract.run_spec import DatasetSpec, ExampleKind
from finetune_contract.run_status import Reason
from finetune_contract.stage_protocol import DatasetFacts, Stage, StageReport
from finetune_trainer.dataset.adoption import find_finished
from finetune_trainer.dataset.alike_documents import alike_documents
from finetune_trainer.dataset.built_dataset import BuiltDataset, GeneratorUse
from finetune_trainer.dataset.changed_documents import count_changed_documents
from finetune_trainer.dataset.cleaned_documents import clean_harvests
from finetune_trainer.dataset.cleaning.personal_data import guard_personal_data
from finetune_trainer.dataset.examples import KINDS, SHARES, WITHOUT_SOURCES
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.draft import Draft
from finetune_trainer.dataset.generator.endpoint import ChatEndpoint
from finetune_trainer.dataset.generator.write_pairs import check_generator, write_pairs
from finetune_trainer.dataset.held_out import held_out
from finetune_trainer.dataset.knowledge_base.changes import SourceRead
from finetune_trainer.dataset.knowledge_base.weaviate import WeaviateKnowledgeBase
from finetune_trainer.dataset.review import ReviewedRow, apply_review, summary_in_words, versions_by_url
from finetune_trainer.dataset.review_file import REVIEW_PLACE, read_review_file
from finetune_trainer.dataset.review_sheet import Judgement
from finetune_trainer.dataset.sources import open_source
from finetune_trainer.dataset.sources.harvest_memory import HarvestMemory
from finetune_trainer.dataset.sources.raw_document import DroppedDocument
from finetune_trainer.dataset.split import Split, split_examples
from finetune_trainer.dataset.step_counts import (
    StepCount,
    count_documents,
    count_examples,
    count_review,
    count_snapshot,
)
from finetune_trainer.dataset.stored_dataset import store_dataset
from finetune_trainer.errors import DataRejected, Preempted
from finetune_trainer.run_log import Progress
from finetune_trainer.stage_context import StageContext

logger = logging.getLogger(__name__)


class ExactBaseModel(NamedTuple):
    """The base model of this run."""

    uri: str
    """With the commit for Hugging Face; empty when nobody has asked."""
    digest: str
    """Identity of its files; part of the run key."""


def resolve_base_model(context: StageContext) -> ExactBaseModel:
    """Which base model exactly; a Hugging Face model is copied into the store on the way.

    Raises:
        BaseModelRejected: there is none, or none that can be tuned.
    """
    from finetune_trainer.training.base_model import check_can_be_tuned, resolve

    found = resolve(context)
    check_can_be_tuned(context, found)
    return ExactBaseModel(found.uri, found.digest)


def build_dataset(
    context: StageContext, resolve_base: Callable[[StageContext], ExactBaseModel] = resolve_base_model
) -> StageReport:
    """Build, store and identify the dataset; say whether its model has been made before."""
    context = replace(context, progress=until_stopped(context))
    spec, progress = context.spec.dataset, context.progress
    progress(0, 0, message="checking store, knowledge base and sources")
    memory = HarvestMemory(context.work_folder / "harvests", context.store)
    sources = {
        source.name: open_source(source, context.environment, context.on_cluster, memory)
        for source in spec.sources
    }
    knowledge_base = _knowledge_base(context)
    generator = _generator(context)
    context.store.check()
    judgements = read_review_file(context)
    if knowledge_base is not None:
        knowledge_base.check()
    for source in sources.values():
        source.check()
    if generator is not None and spec.generator is not None:
        check_generator(generator, spec.generator, context.store)
    progress(0, 0, message="resolving the base model")
    base = resolve_base(context)

    harvests = {name: source.read(progress) for name, source in sources.items()}
    scratch = context.work_folder / "scratch"
    documents, dropped, noted = clean_harvests(harvests, progress, scratch)
    documents, personal_data = guard_personal_data(documents, spec.personal_data, scratch)
    steps = count_documents(harvests, documents, dropped, noted)
    _check_enough(documents, dropped, spec)
    rows = _make_rows(context, documents, generator, judgements)
    written = 0
    if knowledge_base is not None:
        progress(0, 0, message="writing the knowledge base")
        reads = {
            source.name: SourceRead(harvests[source.name].complete, source.max_delete_fraction)
            for source in spec.sources
        }
        written = len(knowledge_base.synchronise(documents, reads, _writing(progress)).writes)
        snapshot = knowledge_base.snapshot(list(sources), scratch)
        steps.append(count_snapshot(documents, snapshot))
        if snapshot != documents:
            _check_enough(snapshot, dropped, spec)
            rows = _make_rows(context, snapshot, generator, judgements)
        documents = snapshot
    split = rows.split
    progress(0, 0, message="storing the dataset")
    built = BuiltDataset(
        documents,
        split.training,
        split.evaluation,
        transfer=split.transfer,
        dropped=tuple(dropped),
        noted=tuple(noted),
        alike=alike_documents(documents),
        steps=(*steps, *rows.steps),
        personal_data=personal_data.counts,
        findings=personal_data.examples,
        reviewed=rows.reviewed,
        generator=rows.generator,
        without_rows=_without_rows(spec.example_kinds, split.training),
    )
    if built.without_rows:
        logger.warning("no training example was made of these kinds: %s", ", ".join(built.without_rows))
    digest = store_dataset(context, built)
    key = run_key(context.spec, base.digest, digest)
    model, evaluation = find_finished(context.store, key)
    adopted = model is not None and evaluation is not None
    compared = context.spec.compare_with
    changed = None
    if compared is not None and compared.dataset_digest is not None:
        changed = count_changed_documents(context.store, compared.dataset_digest, documents, scratch)
    logger.info(
        "dataset built: digest=%s documents=%d written=%d training=%d evaluation=%d dropped=%d adopted=%s",
        digest, len(documents), written, len(split.training), len(split.evaluation), len(dropped), adopted,
    )  # fmt: skip
    return StageReport(
        stage=Stage.DATASET,
        reason=_reason(context, key, adopted=adopted).value,
        message=f"{len(documents)} documents, {len(split.training)} training and {len(split.evaluation)} evaluation "
        f"examples in {context.store.uri(dataset_folder(digest))}"
        + (f"; {rows.generator.in_words()}" if rows.generator is not None else ""),
        dataset=DatasetFacts(
            digest=digest,
            run_key=key,
            base_model=base.uri,
            documents=len(documents),
            training_examples=len(split.training),
            evaluation_examples=len(split.evaluation),
            transfer_examples=len(split.transfer),
            dropped=len(dropped),
            changed_documents=changed,
            adopted=adopted,
        ),
        model=model if adopted else None,
        evaluation=evaluation if adopted else None,
    )


def _without_rows(asked: Sequence[ExampleKind], rows: Iterable[Example]) -> tuple[ExampleKind, ...]:
    made = {row.kind for row in rows}
    return tuple(kind for kind in asked if kind not in made)


def _reason(context: StageContext, key: str, *, adopted: bool) -> Reason:
    compared = context.spec.compare_with
    if compared is not None and compared.run_key == key:
        return Reason.UNCHANGED
    return Reason.ADOPTED if adopted else Reason.COMPLETED


def make_examples(
    corpus: Corpus, spec: DatasetSpec, progress: Progress, folder: Path | None = None
) -> tuple[Split, StepCount]:
    """Both sides of the dataset, and what became of the drafts; rows wait in `folder`, or the system's own.

    Raises:
        DataRejected: no example can be made of these documents.
    """
    untaught_urls = held_out(corpus.documents, spec.split)
    taught, strange = corpus, corpus.about(untaught_urls)
    if untaught_urls:
        taught = corpus.without(untaught_urls)
        corpus.forget()  # what it remembers is not needed before the kinds about documents that are not taught
    kinds = [kind for kind in spec.example_kinds if untaught_urls and kind not in WITHOUT_SOURCES]
    total = len(spec.example_kinds) + len(kinds)

    def drafts_of(number: int, kind: ExampleKind) -> Iterator[Draft]:
        progress(number, total, message="making examples")
        yield from KINDS[kind](taught)
        if number == total - 1:
            taught.forget()  # to choose among the drafts nothing is searched

    def untaught_of(number: int, kind: ExampleKind) -> Iterator[Draft]:
        progress(number, total, message="making examples")
        taught.forget()
        found = KINDS[kind](strange)
        yield from (d for d in found if d.reserved and d.example.document_url in untaught_urls)
        if number == total - 1:
            strange.forget()

    split = split_examples(
        {kind: drafts_of(number, kind) for number, kind in enumerate(spec.example_kinds)},
        spec.split,
        spec.max_examples_per_document,
        untaught={kind: untaught_of(number, kind) for number, kind in enumerate(kinds, total - len(kinds))},
        shares={**SHARES, **spec.example_shares},
        typo_share=spec.typo_share,
        folder=folder,
    )
    progress(total, total, message="making examples")
    if not split.training or not split.evaluation:
        raise DataRejected(
            f"spec.dataset.sources: {len(corpus.documents)} documents with {len(corpus.facts)} facts give "
            f"{len(split.training)} training and {len(split.evaluation)} evaluation examples; examples are made of "
            "headings with sentences under them: give the posts headings, or name more exampleKinds"
        )
    return split, count_examples(split.drafts, split)


def until_stopped(context: StageContext) -> Progress:
    """The context's progress, which ends the stage at its next step once it is told to stop."""

    def progress(*steps: Any, **facts: Any) -> None:
        if context.stop_requested():
            raise Preempted("told to stop before the dataset was stored; run it again")
        context.progress(*steps, **facts)

    return progress


@dataclass(frozen=True)
class _Rows:
    """What was made of documents."""

    split: Split
    steps: tuple[StepCount, ...]
    reviewed: tuple[ReviewedRow, ...]
    generator: GeneratorUse | None


def _make_rows(
    context: StageContext,
    documents: Sequence[Document],
    generator: ChatEndpoint | None,
    judgements: Sequence[Judgement],
) -> _Rows:
    """Both sides as people want them.

    Raises:
        DataRejected: they are too few, or a correction does not fit.
        SourceRejected, SourceUnavailable: the generator.
    """
    spec, progress = context.spec.dataset, context.progress
    corpus = Corpus(documents, context.work_folder / "scratch")
    steps: list[StepCount] = []
    use: GeneratorUse | None = None
    if generator is not None and spec.generator is not None:
        written = write_pairs(
            corpus, spec.generator, generator, context.store, progress, context.stop_requested
        )
        corpus = corpus.with_written(written.pairs)
        steps += written.steps
        use = GeneratorUse(written.requests, spec.generator.max_requests, written.seen, len(written.pairs))
    split, counted = make_examples(corpus, spec, progress, context.work_folder / "scratch")
    steps.append(counted)
    sides = (split.training, split.evaluation, split.transfer)
    reviewed = apply_review(judgements, sides, versions_by_url(documents), REVIEW_PLACE)
    if judgements:
        logger.info("review applied: %s", summary_in_words(reviewed.rows))
        steps.append(count_review(counted.kept, reviewed))
        training, evaluation, transfer = reviewed.sides
        split = replace(split, training=training, evaluation=evaluation, transfer=transfer)
    _check_enough_examples(split, spec)
    return _Rows(split, tuple(steps), reviewed.rows, use)


def _knowledge_base(context: StageContext) -> WeaviateKnowledgeBase | None:
    spec = context.spec.dataset.knowledge_base
    if spec is None or spec.weaviate is None or not context.on_cluster:
        return None
    vectors = spec.weaviate.vectors
    vectoriser = None
    if vectors is not None and vectors.sentence_model is not None:
        from finetune_trainer.dataset.knowledge_base.sentence_model import SentenceVectors

        vectoriser = SentenceVectors(context, vectors.sentence_model)
    knowledge_base = WeaviateKnowledgeBase(spec.weaviate, context.environment, vectoriser)
    knowledge_base.refuse_as_source(context.spec.dataset.sources)
    return knowledge_base


def _generator(context: StageContext) -> ChatEndpoint | None:
    spec = context.spec.dataset
    if spec.generator is None or ExampleKind.GENERATED not in spec.example_kinds:
        return None
    return ChatEndpoint(spec.generator, context.environment, key_required=context.on_cluster)


def _writing(progress: Progress) -> Callable[[int, int], None]:
    return lambda step, total: progress(step, total, message="writing the knowledge base")


def _check_enough(
    documents: Sequence[Document], dropped: Sequence[DroppedDocument], spec: DatasetSpec
) -> None:
    if len(documents) >= spec.min_documents:
        return
    reasons = Counter(entry.reason for entry in dropped)
    because = (
        "; ".join(f"{number} dropped: {reason}" for reason, number in reasons.most_common(3))
        or "none dropped"
    )
    raise DataRejected(
        f"spec.dataset.minDocuments: {len(documents)} documents are left and {spec.min_documents} are needed "
        f"({because}); widen the sources, or lower minDocuments"
    )


def _check_enough_examples(split: Split, spec: DatasetSpec) -> None:
    if len(split.training) < spec.min_examples:
        raise DataRejected(
            f"spec.dataset.minExamples: {len(split.training)} training examples are left and {spec.min_examples} are "
            "needed; add sources or exampleKinds, raise maxExamplesPerDocument, or lower minExamples"
        )
