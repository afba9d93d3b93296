"""Searching all passages of a site at once gives what the chat's own search gives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.sections import Passage, PassageIndex, content_words
from finetune_trainer.dataset.examples.passage_search import PassageSearch

WORDS = ("mill", "wheel", "stone", "price", "winter", "gate", "otter", "bread")
PHRASE = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)
PASSAGES = st.lists(
    st.builds(Passage, title=PHRASE, heading=PHRASE, text=PHRASE, url=st.just("u")), max_size=30
)


@settings(max_examples=200, deadline=None)
@given(PASSAGES, PHRASE, st.integers(1, 12))
def test_it_finds_what_the_chat_finds(passages, question, limit):
    expected = [passage for passage, _ in PassageIndex(passages).rank(question, limit)]

    found = PassageSearch(passages).best(question, limit)

    assert [id(passages[place]) for place in found] == list(map(id, expected))


@settings(max_examples=200, deadline=None)
@given(PASSAGES, PHRASE, PHRASE, st.integers(1, 12))
def test_it_finds_what_the_chat_finds_for_a_follow_up(passages, before, question, limit):
    together = f"{before} {question}"
    expected = [
        (id(passage), score)
        for passage, _, score in PassageIndex(passages).rank_follow_up(together, question, limit)
    ]

    found = PassageSearch(passages).best_after(together, question, limit)

    assert [(id(passages[place]), score) for place, score in found] == expected


@settings(max_examples=200, deadline=None)
@given(PASSAGES, st.frozensets(st.sampled_from(WORDS), max_size=4))
def test_it_knows_which_passage_has_all_of_some_words(passages, wanted):
    stems = set(content_words(" ".join(wanted)))
    search = PassageSearch(passages)

    having = [
        passage
        for passage in passages
        if stems <= set(content_words(f"{passage.title} {passage.heading} {passage.text}"))
    ]

    assert all(search.has_all(place, stems) == (passage in having) for place, passage in enumerate(passages))
    assert search.any_has_all(stems) == bool(having)


@pytest.mark.parametrize("question", ["", "and the", "bowling"])
def test_without_a_word_of_the_site_nothing_is_found(question):
    assert PassageSearch([Passage("Mill", "", "A wheel.", "u")]).best(question, 3) == []
