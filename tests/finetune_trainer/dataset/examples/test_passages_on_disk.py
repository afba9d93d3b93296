"""Passages wait on disk: they come back as they were, their facts are found, and memory does not hold their texts."""

from __future__ import annotations

import gc
import tracemalloc

from finetune_contract.artifacts import Document
from finetune_contract.sections import Passage
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.passages_on_disk import Facts, FactsByPassage, PassagesOnDisk
from finetune_trainer.dataset.on_disk import RowsOnDisk

MILL = Passage("Die Mühle", "Who “dresses” it?", "Ada does. 🐍\n\n| a | b |", "http://s/m")
WEIR = Passage("Weir", "", "A weir.", "http://s/w")


def stored(*rows: tuple[Passage, str]) -> PassagesOnDisk:
    passages = PassagesOnDisk()
    for passage, answer in rows:
        passages.add(passage, answer)
    return passages


def facts_of(passages: PassagesOnDisk, *numbers: int) -> FactsByPassage:
    return FactsByPassage(passages, Facts(passages, numbers))


def test_passages_come_back_as_they_were_and_leave_no_file_with_a_name(tmp_path):
    passages = PassagesOnDisk(tmp_path / "new")

    numbers = [passages.add(MILL, "Ada does."), passages.add(WEIR)]

    assert numbers == [0, 1]
    assert passages == [MILL, WEIR]
    assert passages.of_numbers([1, 0, 1]) == [WEIR, MILL, WEIR]
    assert list((tmp_path / "new").iterdir()) == []


def test_a_fact_knows_its_passage_its_answer_and_its_number():
    facts = Facts(stored((WEIR, ""), (MILL, "Ada does.")), [1])

    (fact,) = facts
    assert (fact.passage, fact.answer, fact.number, fact.url) == (MILL, "Ada does.", 1, "http://s/m")


def test_a_fact_is_found_by_an_equal_passage():
    found = facts_of(stored((WEIR, ""), (MILL, "Ada does.")), 1)

    fact = found.get(Passage(MILL.title, MILL.heading, MILL.text, MILL.url))

    assert fact is not None
    assert fact.answer == "Ada does."
    assert found.get(WEIR) is None
    assert facts_of(stored((WEIR, ""))).get(WEIR) is None


def test_of_equal_passages_the_last_fact_is_found():
    passages = stored((MILL, "Ada does."), (WEIR, ""), (MILL, "Ada does."), (MILL, ""))

    fact = facts_of(passages, 0, 2).get(MILL)

    assert fact is not None
    assert fact.number == 2


def test_a_corpus_holds_little_of_its_texts():
    text = " ".join(["The wheel turns the stone, and the stone grinds the grain."] * 200)
    documents = RowsOnDisk((document(number, text) for number in range(600)), Document)
    size = 600 * len(text)

    gc.collect()
    tracemalloc.start()
    try:
        corpus = Corpus(documents)
        assert corpus.search("wheel", 2)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(corpus.passages) == 600
    assert held < size / 2


def test_what_was_forgotten_is_found_again(corpus):
    fact = corpus.facts[0]
    question = "What does a winter ticket cost?"

    found, ways = corpus.search(question, 3), corpus.ways_to_ask(fact)
    corpus.forget()

    assert found
    assert corpus.search(question, 3) == found
    assert corpus.ways_to_ask(fact) == ways


def test_a_corpus_without_some_documents_finds_none_of_their_passages_and_facts(corpus):
    fact = corpus.facts[0]

    rest = corpus.without({fact.url})

    assert fact.url not in {passage.url for passage in rest.passages}
    assert rest.fact_in(fact.passage) is None
    assert fact.passage not in rest.search(fact.passage.heading, 10)
    assert corpus.fact_in(fact.passage) is not None


def document(number: int, text: str) -> Document:
    return Document(
        source="site",
        post_id=str(number),
        post_title=f"Mill {number}",
        post_excerpt="",
        post_content=text,
        post_date="2025-01-01T00:00:00Z",
        post_author="",
        post_categories=[],
        post_tags=[],
        post_url=f"http://s/{number}",
    )
