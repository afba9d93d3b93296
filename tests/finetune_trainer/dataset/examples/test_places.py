"""Rows hang on where a document lies on its site, not on where the site is served."""

from __future__ import annotations

import pytest

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import DatasetSpec, ExampleKind, SourceSpec
from finetune_contract.sections import Passage
from finetune_trainer.dataset.build import make_examples
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.places import Places
from finetune_trainer.dataset.split import Split

HERE, THERE = "http://127.0.0.1:8091", "https://www.mill.example"


def at(document: Document, url: str, source: str = "site") -> Document:
    return document.model_copy(update={"post_url": url, "post_id": url, "source": source})


def served_at(host: str, corpus: Corpus) -> list[Document]:
    """The posts with the host in their addresses, as links between them, and as text of nobody."""
    return [
        at(document, f"{host}/post-{number}/").model_copy(
            update={
                "post_content": document.post_content.replace("http://s/p", f"{host}/post-0/"),
                "post_author": "Ada Mill",
                "post_tags": ["mill"],
            }
        )
        for number, document in enumerate(corpus.documents)
    ]


def rows_at(host: str, corpus: Corpus) -> Split:
    kinds = [kind for kind in ExampleKind if kind is not ExampleKind.GENERATED]
    spec = DatasetSpec(
        sources=[SourceSpec.model_validate({"name": "site", "wordpress": {"url": host}})], example_kinds=kinds
    )
    return make_examples(Corpus(served_at(host, corpus)), spec, lambda *_, **__: None)[0]


def test_the_same_posts_give_the_same_rows_in_the_same_order_under_another_host(corpus):
    here, there = rows_at(HERE, corpus), rows_at(THERE, corpus)

    assert {example.kind for example in here.training} == set(ExampleKind) - {ExampleKind.GENERATED}
    for side in ("training", "evaluation"):
        moved = [
            row.model_copy(update={"document_url": row.document_url.replace(HERE, THERE)})
            for row in getattr(here, side)
        ]
        assert moved == list(getattr(there, side))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("site", f"{HERE}/about/"), ("blog", f"{THERE}/about/")),
        (("site", f"{HERE}/about/"), ("site", f"{THERE}/about/")),
        (("site", f"{HERE}/?p=1"), ("site", f"{HERE}/?p=2")),
    ],
)
def test_two_documents_never_lie_in_one_place(corpus, first, second):
    documents = [at(corpus.documents[0], url, source) for source, url in (first, second)]
    places = Places(documents)

    assert len({places.of(document.post_url) for document in documents}) == 2


def test_rows_of_two_sources_with_the_same_paths_have_identities_of_their_own(corpus):
    documents = [
        at(document, f"{host}/{number}/", source)
        for host, source in ((HERE, "site"), (THERE, "blog"))
        for number, document in enumerate(corpus.documents)
    ]
    split = make_examples(
        Corpus(documents),
        DatasetSpec(sources=[SourceSpec.model_validate({"name": "site", "wordpress": {"url": HERE}})]),
        lambda *_, **__: None,
    )[0]

    ids = [row.id for row in (*split.training, *split.evaluation)]
    assert len(ids) == len(set(ids)) > 0


def test_what_is_not_of_the_site_is_known_by_its_whole_address():
    places = Places([])
    passages = [Passage("A", "", "a", f"{HERE}/a/"), Passage("B", "", "b", f"{HERE}/b/")]

    assert places.of(f"{HERE}/a/") == f"{HERE}/a/"
    assert places.family(passages) == places.family(passages[::-1])
    assert places.family(()) == ""
