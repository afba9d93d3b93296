"""Training examples from documents, without any model: one file a kind, and this table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.examples.closed_book import make_closed_book
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.draft import Draft
from finetune_trainer.dataset.examples.follow_up import make_follow_ups
from finetune_trainer.dataset.examples.generated import make_generated
from finetune_trainer.dataset.examples.grounded import make_grounded
from finetune_trainer.dataset.examples.metadata import make_metadata
from finetune_trainer.dataset.examples.refusal import make_refusals
from finetune_trainer.dataset.examples.url import make_url

KINDS: dict[ExampleKind, Callable[[Corpus], Iterator[Draft]]] = {
    ExampleKind.GROUNDED: make_grounded,
    ExampleKind.CLOSED_BOOK: make_closed_book,
    ExampleKind.URL: make_url,
    ExampleKind.METADATA: make_metadata,
    ExampleKind.FOLLOW_UP: make_follow_ups,
    ExampleKind.REFUSAL: make_refusals,
    ExampleKind.GENERATED: make_generated,
}
"""Pure functions: the same documents give the same drafts."""

SHARES: dict[ExampleKind, float] = {
    ExampleKind.GROUNDED: 0.50,
    ExampleKind.CLOSED_BOOK: 0.25,
    ExampleKind.GENERATED: 0.25,
    ExampleKind.REFUSAL: 0.15,
    ExampleKind.URL: 0.10,
    ExampleKind.METADATA: 0.10,
    ExampleKind.FOLLOW_UP: 0.08,
}
"""How the kinds mix, in relation to each other; grounded leads, because that is how readers are served."""

WITHOUT_SOURCES = frozenset({ExampleKind.CLOSED_BOOK, ExampleKind.METADATA})
"""Nobody can know this of a page that was not taught."""
