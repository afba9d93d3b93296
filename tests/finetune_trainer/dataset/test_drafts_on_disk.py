"""Drafts wait on disk: piles come back in their order, and memory does not grow with what is written."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

from finetune_contract.artifacts import ChatMessage, Example
from finetune_contract.run_spec import ExampleKind, SplitSpec
from finetune_trainer.dataset.drafts_on_disk import DraftsOnDisk, hash_of, question_hash
from finetune_trainer.dataset.examples.draft import Draft
from finetune_trainer.dataset.split import split_examples

PILES = ("taught", "asked")


def draft(number: int, round_number: int = 0, reserved: bool = False, words: int = 1) -> Draft:
    question = f"What is thing {number}?"
    example = Example(
        id=f"{number:04x}",
        kind=ExampleKind.GROUNDED,
        document_url=f"http://s/{number % 50}",
        template="t",
        question=question,
        prompt=[ChatMessage(role="user", content=f"source {number} " * words + question)],
        answer=f"Thing {number}.",
    )
    return Draft(example, reserved, round_number, family=f"f{number}")


def identities(shelf: DraftsOnDisk, pile: str) -> list[str]:
    return [shelf.example(card).id for card in shelf.cards(pile)]


def test_a_pile_is_sorted_by_rounds_and_shuffled_inside_them(tmp_path):
    shelf = DraftsOnDisk(7, tmp_path / "scratch")
    shelf.add(PILES, (draft(number, round_number=number % 2) for number in range(40)))

    first, second = identities(shelf, "taught")[:20], identities(shelf, "taught")[20:]

    assert sorted(first) == [draft(number).example.id for number in range(0, 40, 2)]
    assert sorted(second) == [draft(number).example.id for number in range(1, 40, 2)]
    assert first != sorted(first)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_reserved_drafts_have_a_pile_of_their_own_and_rounds_can_be_taken_together():
    shelf = DraftsOnDisk(7)
    shelf.add(PILES, [draft(1, 2), draft(2, 1), draft(3, 0), draft(4, 1, True), draft(5, 0, True)], at_once=3)

    assert set(identities(shelf, "taught")) == {"0001", "0002", "0003"}
    assert identities(shelf, "asked") == ["0005", "0004"]
    assert len(shelf) == 5
    one_seed, other = DraftsOnDisk(7), DraftsOnDisk(8)
    for each in (one_seed, other):
        each.add(PILES, (draft(number) for number in range(40)))
    assert identities(one_seed, "taught") != identities(other, "taught")


def test_hashes_and_kept_questions_are_found_under_their_names():
    shelf = DraftsOnDisk(7)
    shelf.add(PILES, [draft(1), draft(2)])
    first, second = shelf.cards("taught")

    assert shelf.is_new("a", first.question)
    assert not shelf.is_new("a", first.question)
    assert shelf.is_new("b", first.question)
    assert (shelf.holds("a", first.question), shelf.holds("a", second.question)) == (True, False)
    shelf.keep("a", 3, "How old is it?")
    shelf.keep("a", 3, "How big is it?")
    assert shelf.kept("a", 3) == ["How old is it?", "How big is it?"]
    assert shelf.kept("b", 3) == []
    assert question_hash("What  is IT?") == hash_of("what is it") == question_hash("what is it")


def test_memory_does_not_hold_what_is_written():
    def drafts() -> Iterator[Draft]:
        yield from (draft(number, words=2500) for number in range(1000))  # of about 30 kB each

    tracemalloc.start()
    split = split_examples({ExampleKind.GROUNDED: drafts()}, SplitSpec(), 200)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(split.training) == 1000
    assert sum(len(row.prompt[0].content) for row in split.training) > 25_000_000
    assert peak < 8_000_000
