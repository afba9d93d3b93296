"""dataset.html, the dataset's page for people: verdict, pictures, what was dropped and why, and rows to read.

One file, no network, no times: the same dataset gives the same page. Everything that came from a source is escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Template

from finetune_contract.artifacts import Document, Example
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.built_dataset import BuiltDataset
from finetune_trainer.dataset.examples.places import stable_order
from finetune_trainer.dataset.review import Outcome, summary_in_words
from finetune_trainer.dataset.summary import (
    Histogram,
    balance_of_kinds,
    count_words,
    example_words,
    histogram,
    summarise,
)
from finetune_trainer.page_template import page_template

SAMPLES_PER_KIND = 6
SHOWN_DOCUMENTS = 200
"""Of those dropped, and of those to be looked at."""
SHOWN_CATEGORIES = 20
SHOWN_GROUPS = 50
"""Of documents that are nearly the same."""
SHOWN_OF_A_GROUP = 10
SHOWN_SQUARES = 60
FEW_ROWS = 1000
MUCH_DROPPED = 0.2
MUCH_REFUSED = 0.5
"""Share of the pairs of a generator that the checks refuse."""
LOOK_AGAIN = (Outcome.DOUBTFUL, Outcome.STALE, Outcome.GONE)


@dataclass(frozen=True)
class KindBar:
    """Rows of one kind on each side."""

    kind: str
    training: int
    evaluation: int
    transfer: int


@dataclass(frozen=True)
class NamedCount:
    """One bar."""

    name: str
    count: int


def render_report(built: BuiltDataset, digest: str) -> str:
    """The page as HTML."""
    roots = _root_categories(built.documents)
    return _template().render(
        digest=digest,
        built=built,
        warnings=warnings(built),
        words=sum(count_words(document.post_content) for document in built.documents),
        balance=balance_of_kinds(built.training),
        kinds=_kind_bars(built),
        lengths=_lengths(built),
        roots=roots[:SHOWN_CATEGORIES],
        more_roots=roots[SHOWN_CATEGORIES:],
        sides=[
            ("Training", summarise(built.training)),
            ("Evaluation: documents that are taught", summarise(built.evaluation)),
            ("Evaluation: documents that are not taught", summarise(built.transfer)),
        ],
        shown=SHOWN_DOCUMENTS,
        group_sizes=_group_sizes(built),
        groups=built.alike[:SHOWN_GROUPS],
        shown_of_a_group=SHOWN_OF_A_GROUP,
        squares=SHOWN_SQUARES,
        samples=[(kind.value, rows) for kind in ExampleKind if (rows := sample_of(built.training, kind))],
        evaluation_samples=sample_of(built.evaluation),
    )


def warnings(built: BuiltDataset) -> list[str]:
    """What a person should know before training on it."""
    found = []
    if len(built.training) < FEW_ROWS:
        found.append(
            f"{len(built.training):,} training examples are under {FEW_ROWS:,}: enough to try the way, little to learn "
            "from. Add sources or kinds of examples, or raise maxExamplesPerDocument."
        )
    offered = len(built.documents) + len(built.dropped)
    if len(built.dropped) > MUCH_DROPPED * offered:
        found.append(
            f"{len(built.dropped):,} of {offered:,} documents were dropped. Read the reasons below before training."
        )
    if built.without_rows:
        kinds = ", ".join(kind.value for kind in built.without_rows)
        found.append(
            f"No training example was made of these kinds: {kinds}. Their rules need headings with sentences under "
            "them, and read English: for posts in another language name `generated` and a model that writes it."
        )
    if built.noted:
        found.append(
            f"Documents that were hard to clean: {len(built.noted):,}. Look at them; their addresses are below, under "
            "what was kept."
        )
    if built.generator is not None and built.generator.refused_share > MUCH_REFUSED:
        found.append(
            f"The generator is often wrong: {built.generator.passed_in_words()}. Read the reasons below, and "
            "think of a larger model."
        )
    if built.personal_data:
        number = sum(built.personal_data.values())
        found.append(
            f"Personal data was found in {number:,} places. What stands in a document can be said by the model."
        )
    if doubtful := [row for row in built.reviewed if row.outcome in LOOK_AGAIN]:
        found.append(
            f"Lines of the review that want another look: {summary_in_words(doubtful)}. "
            "Make a new sheet with `finetune dataset review --out`."
        )
    found += [
        f"Step {step.step}: {step.in_words()}, and the reasons name {sum(step.dropped.values())}. "
        "The count of this step is wrong."
        for step in built.steps
        if not step.is_balanced
    ]
    return found


def sample_of(
    examples: Sequence[Example], kind: ExampleKind | None = None, number: int = SAMPLES_PER_KIND
) -> list[Example]:
    """The same few rows every time, spread over the documents."""
    rows = [example for example in examples if kind is None or example.kind == kind]
    return sorted(rows, key=lambda example: stable_order("sample", example.id))[:number]


def _root_categories(documents: Sequence[Document]) -> list[NamedCount]:
    roots = Counter(document.post_categories[0] if document.post_categories else "" for document in documents)
    ordered = sorted(roots.items(), key=lambda item: (-item[1], item[0]))
    return [NamedCount(name or "no category", count) for name, count in ordered]


def _group_sizes(built: BuiltDataset) -> list[NamedCount]:
    """How many documents stand alone, and how many in groups of two, of three, and so on."""
    sizes = Counter(len(group) for group in built.alike)
    alone = len(built.documents) - sum(size * number for size, number in sizes.items())
    groups = [
        NamedCount(f"in {number:,} group{'s' if number > 1 else ''} of {size:,}", size * number)
        for size, number in sorted(sizes.items())
    ]
    return [NamedCount("like no other", alone), *groups]


def _kind_bars(built: BuiltDataset) -> list[KindBar]:
    training = Counter(example.kind for example in built.training)
    evaluation = Counter(example.kind for example in built.evaluation)
    transfer = Counter(example.kind for example in built.transfer)
    return [
        KindBar(kind.value, training[kind], evaluation[kind], transfer[kind])
        for kind in ExampleKind
        if training[kind] or evaluation[kind] or transfer[kind]
    ]


def _lengths(built: BuiltDataset) -> list[tuple[str, Histogram]]:
    return [
        ("Words of prompt and answer", histogram([example_words(row) for row in built.training])),
        ("Words of the answer", histogram([count_words(row.answer) for row in built.training])),
        ("Words of a document", histogram([count_words(row.post_content) for row in built.documents])),
    ]


@cache
def _template() -> Template:
    return page_template(
        "finetune_trainer.dataset", "report_template.html", {"thousands": lambda number: f"{number:,}"}
    )
