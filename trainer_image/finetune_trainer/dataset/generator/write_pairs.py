"""The generator: asks a language model about every section, and keeps what passes the checks.

At most two questions are on their way, in threads that do not hold the process: a pod that is told to stop ends in
time, though an answer may take minutes. Which sections are asked first is decided by a hash, so that a small budget
covers the whole site.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial

from finetune_contract.prompt import CITATION
from finetune_contract.run_spec import GeneratorSpec
from finetune_contract.sections import Passage
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.phrasing import normalised
from finetune_trainer.dataset.examples.places import stable_order
from finetune_trainer.dataset.examples.written_pair import WrittenPair
from finetune_trainer.dataset.generator.checks import answer_fault, question_fault
from finetune_trainer.dataset.generator.endpoint import BudgetSpent, ChatEndpoint
from finetune_trainer.dataset.generator.kept_answers import KeptAnswers
from finetune_trainer.dataset.generator.wording import (
    INSTRUCTION,
    MAX_ANSWER_TOKENS,
    SCHEMA,
    RawPair,
    read_pairs,
    section_message,
    shown_text,
)
from finetune_trainer.dataset.step_counts import StepCount, count_step
from finetune_trainer.errors import Preempted, SourceUnavailable, TrainerError
from finetune_trainer.run_log import Progress
from finetune_trainer.stores.store import Store

logger = logging.getLogger(__name__)

IN_FLIGHT = 2
LOOK_UP_SECONDS = 0.5
"""How often it is asked whether to stop, while answers are waited for."""
LATE_SECONDS = 10.0
"""How long answers on their way are waited for at the end; a pod that is told to stop has half a minute."""
MIN_SECTION_WORDS = 8
ASKED_ALREADY = "the question was asked already"
NOT_FOUND = "search does not lead a reader who asks so to the section"


@dataclass(frozen=True)
class Written:
    """Pairs in the order of the documents, and what became of the others."""

    pairs: tuple[WrittenPair, ...]
    steps: tuple[StepCount, ...]
    requests: int
    seen: int
    """Pairs before the checks."""


@dataclass(frozen=True)
class _Section:
    place: int
    """Of its passage in the corpus."""
    message: str
    key: str


def check_generator(endpoint: ChatEndpoint, spec: GeneratorSpec, store: Store) -> None:
    """Prove address and key before anything is read. An endpoint that is down is no fault yet when it was asked
    before: what it said may be all that is needed.

    Raises:
        SourceRejected: the key is missing or refused.
        SourceUnavailable: nobody answers, and nothing is kept.
    """
    try:
        endpoint.check()
    except SourceUnavailable as error:
        if not _kept_answers(spec, store).is_any_stored():
            raise
        logger.warning("the generator does not answer, and what it said before is used: %s", error)


def write_pairs(
    corpus: Corpus,
    spec: GeneratorSpec,
    endpoint: ChatEndpoint,
    store: Store,
    progress: Progress,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Written:
    """Questions and answers for the sections of a corpus.

    Raises:
        SourceRejected, SourceUnavailable: the endpoint; what it said before is kept.
        Preempted: told to stop; what it said before is kept.
    """
    kept = _kept_answers(spec, store)
    kept.load()
    sections, refused = _sections(corpus, kept)
    missing = [section for section in sections if kept.get(section.key) is None]
    missing.sort(key=lambda section: stable_order("generated", section.message))
    _ask(missing, len(sections), endpoint, kept, progress, stop_requested)

    pairs: list[WrittenPair] = []
    faults: Counter[str] = Counter()
    asked: set[str] = set()
    seen = 0
    for section in sections:
        content = kept.get(section.key)
        found = None if content is None else read_pairs(content)
        if found is None:
            refused[
                "beyond maxRequests" if content is None else "the answer is not the JSON that was asked for"
            ] += 1
            continue
        passage = corpus.passages[section.place]
        for raw in found:
            seen += 1
            pair = _checked(raw, passage, corpus, asked)
            if isinstance(pair, str):
                faults[pair] += 1
            else:
                pairs.append(pair)
    all_sections = len(corpus.passages)
    steps = (
        count_step("generator", "sections", all_sections, all_sections - refused.total(), refused),
        count_step("generator", "pairs", seen, len(pairs), faults),
    )
    logger.info(
        "pairs written: sections=%d requests=%d pairs=%d kept=%d",
        len(sections),
        endpoint.sent,
        seen,
        len(pairs),
    )
    return Written(tuple(pairs), steps, endpoint.sent, seen)


def _kept_answers(spec: GeneratorSpec, store: Store) -> KeptAnswers:
    return KeptAnswers(store, spec.model, spec.temperature, INSTRUCTION)


def _sections(corpus: Corpus, kept: KeptAnswers) -> tuple[list[_Section], Counter[str]]:
    """Sections worth asking about, and why the others are not."""
    refused: Counter[str] = Counter()
    found: dict[str, _Section] = {}
    for place, passage in enumerate(corpus.passages):
        message = section_message(passage)
        if len(shown_text(passage).split()) < MIN_SECTION_WORDS:
            refused["too short to ask about"] += 1
        elif message in found:
            refused["the same words as another section"] += 1
        else:
            found[message] = _Section(place, message, kept.key(message))
    return list(found.values()), refused


def _ask(
    missing: Sequence[_Section],
    total: int,
    endpoint: ChatEndpoint,
    kept: KeptAnswers,
    progress: Progress,
    stop_requested: Callable[[], bool],
) -> None:
    """Ask about the sections in their order until all are answered or the budget is spent."""
    waiting: dict[Future[str], str] = {}
    queue = iter(missing)
    answered, spent = total - len(missing), False
    try:
        while True:
            while not spent and len(waiting) < IN_FLIGHT and (section := next(queue, None)) is not None:
                ask = partial(endpoint.ask, INSTRUCTION, section.message, SCHEMA, MAX_ANSWER_TOKENS)
                waiting[_begin(ask)] = section.key
            if not waiting:
                break
            for future in wait(waiting, LOOK_UP_SECONDS, FIRST_COMPLETED).done:
                try:
                    content = future.result()
                except BudgetSpent:
                    spent = True
                else:
                    kept.add(waiting[future], content)
                    answered += 1
                del waiting[future]
            if stop_requested():
                raise Preempted("told to stop while the generator was asked; its answers so far are kept")
            progress(answered, total, message="asking the generator")
    finally:
        _keep_late_answers(waiting, kept)


def _begin(ask: Callable[[], str]) -> Future[str]:
    """Ask in a thread that the process does not wait for when it ends."""
    future: Future[str] = Future()

    def work() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is taken
            future.set_exception(error)

    threading.Thread(target=work, name="generator", daemon=True).start()
    return future


def _keep_late_answers(waiting: dict[Future[str], str], kept: KeptAnswers) -> None:
    """Answers that come soon after something else ended the asking; their own errors are no news then."""
    kept.save()
    for future in wait(waiting, LATE_SECONDS).done:
        try:
            kept.add(waiting[future], future.result())
        except (BudgetSpent, TrainerError):
            continue
    kept.save()


def _checked(raw: RawPair, passage: Passage, corpus: Corpus, asked: set[str]) -> WrittenPair | str:
    """The pair with the wordings that may be taught, or why there is none."""
    answer = " ".join(CITATION.sub("", raw.answer).split())
    questions: list[str] = []
    faults: list[str] = []
    for question in (" ".join(wording.split()) for wording in raw.questions):
        fault = question_fault(question, passage) or answer_fault(answer, question, passage)
        if not fault and normalised(question) in asked:
            fault = ASKED_ALREADY
        if not fault and not corpus.with_distractor(question, passage):
            fault = NOT_FOUND
        if fault:
            faults.append(fault)
            continue
        asked.add(normalised(question))
        questions.append(question)
    if not questions:
        return faults[0] if faults else "a pair without a question"
    return WrittenPair(passage, tuple(questions), answer)
