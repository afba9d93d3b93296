"""Questions that lean on the one before, shown and searched as the chat does."""

from __future__ import annotations

import pytest

from finetune_chat.answering.answering import Turn, prompt_messages
from finetune_chat.answering.retrieve import FoundDocument, Retrieved, choose
from finetune_chat.settings import ChatSettings
from finetune_contract.artifacts import Document
from finetune_contract.prompt import MAX_PASSAGES, cited_numbers, conversation
from finetune_contract.sections import Passage, leans_on_previous
from finetune_trainer.dataset.examples.corpus import MIN_SCORE, Corpus
from finetune_trainer.dataset.examples.follow_up import make_follow_ups, second_questions, with_pronoun
from finetune_trainer.dataset.examples.passages_on_disk import Fact


@pytest.fixture
def loaves(corpus):
    """A site with a document whose headings speak of the same thing."""
    content = (
        "## How much is the wheel?\n\nThe wheel was bought for £950 by the trust.\n\n"
        "## How old is the wheel?\n\nThe wheel was built in 1687 by two brothers.\n\n"
        "## Repairs\n\nRepairs are made every winter by the crew."
    )
    fields = corpus.documents[0].to_wire() | {
        "postTitle": "Wheel",
        "postContent": content,
        "postUrl": "http://s/w",
    }
    return Corpus([*corpus.documents, Document.model_validate(fields)])


def test_the_second_question_uses_a_pronoun_or_names_only_the_topic(loaves):
    questions = {draft.example.question for draft in make_follow_ups(loaves)}

    assert "How old is it?" in questions
    assert questions & {"And what about repairs?", "What about repairs?", "And repairs?"}


def test_the_answer_stands_in_the_source_that_it_cites_and_the_turns_alternate(loaves):
    drafts = list(make_follow_ups(loaves))

    assert drafts
    for draft in drafts:
        roles = [message.role for message in draft.example.prompt]
        assert roles == ["user", "assistant", "user"]
        assert "Question:" not in draft.example.prompt[0].content
        (number,) = cited_numbers(draft.example.answer)
        sources = draft.example.prompt[2].content.split("\n\nQuestion: ")[0]
        assert draft.example.answer.rpartition(" [")[0] in sources.split(f"[{number}] ")[1]


def test_the_chat_shows_the_same_turns():
    passages = (Passage("Wheel", "", "It is old.", "http://s/w"),)
    history = [(f"q{n}", "a" * 700) for n in range(4)]

    shown = prompt_messages("And it?", [Turn(*turn) for turn in history], Retrieved(passages, (), 1.0))

    assert shown == conversation(history, "And it?", passages)
    assert len(shown) == 5


def test_the_chat_finds_the_same_sources_for_a_follow_up(loaves):
    found = [FoundDocument(d.post_title, d.post_url, d.post_content) for d in loaves.documents]

    compared = 0
    for draft in make_follow_ups(loaves):
        opening, question = draft.example.prompt[0].content, draft.example.question
        if leans_on_previous(question):
            chat = choose(f"{opening} {question}", found, MIN_SCORE, must_hold=question)
            if chat.fits:
                assert list(chat.passages) == loaves.search_after(opening, question, MAX_PASSAGES)
                compared += 1
    assert compared
    assert ChatSettings.model_fields["min_score"].default == MIN_SCORE


@pytest.mark.parametrize(
    ("first", "second", "asked"),
    [
        ("How much is the wheel?", "How old is the wheel?", "How old is it?"),
        ("What does a bat walk cost?", "When does a bat walk start?", "When does it start?"),
        ("Who owns the mill?", "Is there a café at the mill?", "Is there a café there?"),
        ("Who owns the mill?", "What is the mill cat called?", ""),
        ("Who cut the stones?", "How heavy are the stones?", ""),
        ("Who owns the mill?", "When was the bridge built?", ""),
    ],
)
def test_a_thing_that_both_speak_of_becomes_a_pronoun(first, second, asked):
    assert with_pronoun(first, second) == asked


@pytest.mark.parametrize(
    ("heading", "question"),
    [
        ("5. How deep is the pond?", "And how deep is the pond?"),
        ("TTS: how does it speak?", "And TTS: how does it speak?"),
    ],
)
def test_a_heading_loses_its_number_and_an_acronym_keeps_its_letters(corpus, heading, question):
    fact = Fact(Passage("Wheel", heading, "It is so.", "http://s/w"), "It is so.", 0)

    assert question in {way.question for way in second_questions(corpus, "Who was it?", fact)}
