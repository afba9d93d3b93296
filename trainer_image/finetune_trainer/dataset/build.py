"""The dataset stage: sources -> clean -> knowledge base -> snapshot -> examples -> split -> store.

Everything that can be refused is refused before anything is read or changed. The same documents give the same bytes.
Must not know how a source is read, a question asked, or a file stored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from finetune_contract.artifact_layout import (
    DOCUMENTS_FILE,
    DROPPED_FILE,
    EVALUATION_FILE,
    REPORT_FILE,
    TRAIN_FILE,
    VERDICT_FILE,
    dataset_folder,
    evaluation_folder,
    model_folder,
)
from finetune_contract.artifacts import ArtifactKind, Document
from finetune_contract.model import ContractModel
from finetune_contract.prompt import PROMPT_VERSION
from finetune_contract.run_key import run_key
from finetune_contract.run_spec import DatasetSpec
from finetune_contract.run_status import Reason
from finetune_contract.stage_protocol import DatasetFacts, EvaluationFacts, ModelFacts, Stage, StageReport
from finetune_trainer.artifact_files import publish_folder, read_manifest
from finetune_trainer.dataset.cleaning.html import clean_html, excerpt_text, plain_text
from finetune_trainer.dataset.examples import KINDS
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.knowledge_base.weaviate import WeaviateKnowledgeBase
from finetune_trainer.dataset.report import render_report
from finetune_trainer.dataset.sources import open_source
from finetune_trainer.dataset.sources.raw_document import DroppedDocument, Harvest, RawDocument
from finetune_trainer.dataset.split import Split, split_examples
from finetune_trainer.errors import DataRejected
from finetune_trainer.run_log import Progress
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.store import Store

logger = logging.getLogger(__name__)


def base_model_digest(context: StageContext) -> str:
    """Identity of the base model's files; a Hugging Face model is copied into the store on the way."""
    from finetune_trainer.training.base_model import resolve

    return resolve(context).digest


def build_dataset(
    context: StageContext, resolve_digest: Callable[[StageContext], str] = base_model_digest
) -> StageReport:
    """Build, store and identify the dataset; say whether its model has been made before."""
    spec, progress = context.spec.dataset, context.progress
    progress(0, 0, message="checking store, knowledge base and sources")
    sources = {
        source.name: open_source(source, context.environment, credentials_required=context.on_cluster)
        for source in spec.sources
    }
    knowledge_base = _knowledge_base(context)
    context.store.check()
    if knowledge_base is not None:
        knowledge_base.check()
    for source in sources.values():
        source.check()
    progress(0, 0, message="resolving the base model")
    base_digest = resolve_digest(context)

    harvests = {name: source.read(progress) for name, source in sources.items()}
    documents, dropped = clean_harvests(harvests, progress)
    _check_enough(documents, dropped, spec)
    written = 0
    if knowledge_base is not None:
        progress(0, 0, message="writing the knowledge base")
        complete = {name: harvest.complete for name, harvest in harvests.items()}
        written = len(knowledge_base.synchronise(documents, complete).writes)
        documents = knowledge_base.snapshot(list(sources))
        _check_enough(documents, dropped, spec)

    split = make_examples(documents, spec, progress)
    progress(0, 0, message="storing the dataset")
    digest = store_dataset(context, documents, dropped, split)
    key = run_key(context.spec, base_digest, digest)
    model, evaluation = find_finished(context.store, key)
    adopted = model is not None and evaluation is not None
    logger.info(
        "dataset built: digest=%s documents=%d written=%d training=%d evaluation=%d dropped=%d adopted=%s",
        digest, len(documents), written, len(split.training), len(split.evaluation), len(dropped), adopted,
    )  # fmt: skip
    return StageReport(
        stage=Stage.DATASET,
        reason=(Reason.ADOPTED if adopted else Reason.COMPLETED).value,
        message=f"{len(documents)} documents, {len(split.training)} training and {len(split.evaluation)} evaluation "
        f"examples in {context.store.uri(dataset_folder(digest))}",
        dataset=DatasetFacts(
            digest=digest,
            run_key=key,
            documents=len(documents),
            training_examples=len(split.training),
            evaluation_examples=len(split.evaluation),
            dropped=len(dropped),
            adopted=adopted,
        ),
        model=model if adopted else None,
        evaluation=evaluation if adopted else None,
    )


def clean_harvests(
    harvests: dict[str, Harvest], progress: Progress
) -> tuple[list[Document], list[DroppedDocument]]:
    """Cleaned documents in the order of date and identity, and everything that was dropped, with the reason."""
    raw = [document for harvest in harvests.values() for document in harvest.documents]
    dropped = [entry for harvest in harvests.values() for entry in harvest.dropped]
    documents: list[Document] = []
    for number, document in enumerate(raw, start=1):
        cleaned = clean(document)
        if cleaned.post_content:
            documents.append(cleaned)
        else:
            reason = "no text is left after cleaning"
            dropped.append(DroppedDocument(document.source, document.post_id, document.url, reason))
        progress(number, len(raw), message="cleaning")
    documents.sort(key=lambda document: (document.post_date, document.post_id, document.source))
    dropped.sort(key=lambda entry: (entry.source, entry.url, entry.post_id))
    return documents, dropped


def clean(raw: RawDocument) -> Document:
    """One document with Markdown for HTML."""
    content = clean_html(raw.content_html, raw.url)
    return Document(
        source=raw.source,
        post_id=raw.post_id,
        post_title=plain_text(raw.title_html) or "Untitled",
        post_excerpt=excerpt_text(raw.excerpt_html),
        post_content=content,
        post_date=raw.date,
        post_author=raw.author,
        post_categories=list(raw.categories),
        post_tags=list(raw.tags),
        post_url=raw.url,
    )


def make_examples(documents: Sequence[Document], spec: DatasetSpec, progress: Progress) -> Split:
    """Both sides of the dataset.

    Raises:
        DataRejected: no example can be made of these documents.
    """
    corpus = Corpus(documents)
    drafts = {}
    for number, kind in enumerate(spec.example_kinds, start=1):
        drafts[kind] = list(KINDS[kind](corpus))
        progress(number, len(spec.example_kinds), message="making examples")
    split = split_examples(drafts, spec.split, spec.max_examples_per_document)
    if not split.training or not split.evaluation:
        raise DataRejected(
            f"spec.dataset.sources: {len(documents)} documents with {len(corpus.facts)} facts give "
            f"{len(split.training)} training and {len(split.evaluation)} evaluation examples; examples are made of "
            "headings with sentences under them: give the posts headings, or name more exampleKinds"
        )
    return split


def store_dataset(
    context: StageContext, documents: Sequence[Document], dropped: Sequence[DroppedDocument], split: Split
) -> str:
    """Upload the folder under its digest, unless it is there; the digest."""
    lines = {
        TRAIN_FILE: _json_lines(split.training),
        EVALUATION_FILE: _json_lines(split.evaluation),
        DOCUMENTS_FILE: _json_lines(documents),
    }
    digest = hashlib.sha256(
        b"".join(hashlib.sha256(name.encode() + b"\n" + lines[name]).digest() for name in sorted(lines))
    ).hexdigest()
    key = dataset_folder(digest)
    if read_manifest(context.store, key) is not None:
        logger.info("the dataset is stored already: uri=%s", context.store.uri(key))
        return digest
    folder = _empty_folder(context.work_folder / "dataset")
    for name, content in lines.items():
        (folder / name).write_bytes(content)
    (folder / DROPPED_FILE).write_bytes(
        b"".join(json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n" for entry in dropped)
    )
    report = render_report(documents, dropped, split.training, split.evaluation, split.left_out, digest)
    (folder / REPORT_FILE).write_text(report, encoding="utf-8")
    publish_folder(
        context.store,
        key,
        folder,
        ArtifactKind.DATASET,
        {
            "digest": digest,
            "promptVersion": PROMPT_VERSION,
            "documents": len(documents),
            "dropped": len(dropped),
            "trainingExamples": len(split.training),
            "evaluationExamples": len(split.evaluation),
            "sources": sorted({document.source for document in documents}),
        },
    )
    return digest


def find_finished(store: Store, key: str) -> tuple[ModelFacts | None, EvaluationFacts | None]:
    """The whole model and verdict that lie under a run key."""
    manifest = read_manifest(store, model_folder(key))
    if manifest is None or read_manifest(store, evaluation_folder(key)) is None:
        return None, None
    verdict = store.read(f"{evaluation_folder(key)}/{VERDICT_FILE}")
    try:
        evaluation = EvaluationFacts.model_validate_json(verdict or b"")
    except ValidationError:
        logger.warning("the verdict of an earlier run cannot be read and is made anew: run_key=%s", key)
        return None, None
    model = ModelFacts(
        uri=store.uri(model_folder(key)), manifest_sha256=manifest.sha256(), size_bytes=manifest.size_bytes
    )
    return model, evaluation


def _knowledge_base(context: StageContext) -> WeaviateKnowledgeBase | None:
    spec = context.spec.dataset.knowledge_base
    if spec is None or spec.weaviate is None or not context.on_cluster:
        return None
    return WeaviateKnowledgeBase(spec.weaviate, context.environment)


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


def _json_lines(rows: Iterable[ContractModel]) -> bytes:
    return b"".join(
        json.dumps(row.to_wire(), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        for row in rows
    )


def _empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
