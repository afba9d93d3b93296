"""What each kind of example teaches, and that all of it is true of the documents."""

from __future__ import annotations

import re

import pytest

from finetune_contract.prompt import MAX_PASSAGES, REFUSAL, cited_numbers
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.examples import KINDS, SHARES
from finetune_trainer.dataset.examples.corpus import Corpus


def sources_of(prompt: str) -> list[str]:
    """The numbered sources of a prompt, from the first on."""
    return re.split(r"^\[\d\] ", prompt.split("\n\nQuestion: ")[0], flags=re.M)[1:]


def test_every_kind_of_the_contract_has_a_function_and_a_share():
    assert set(KINDS) == set(SHARES) == set(ExampleKind)
    assert max(SHARES, key=lambda kind: SHARES[kind]) is ExampleKind.GROUNDED


@pytest.mark.parametrize("kind", [kind for kind in ExampleKind if kind is not ExampleKind.GENERATED])
def test_the_same_documents_give_the_same_examples(corpus, kind):
    drafts = list(KINDS[kind](corpus))

    assert drafts
    assert list(KINDS[kind](corpus)) == drafts


def test_opening_paragraphs_make_no_facts(corpus):
    assert "One ticket is for all." not in [fact.answer for fact in corpus.facts]


def test_a_grounded_answer_stands_in_the_source_that_it_cites(corpus):
    drafts = list(KINDS[ExampleKind.GROUNDED](corpus))

    for draft in drafts:
        sources = sources_of(draft.example.prompt[0].content)
        (number,) = cited_numbers(draft.example.answer)
        assert 1 <= len(sources) <= MAX_PASSAGES
        assert re.sub(r" \[\d\]$", "", draft.example.answer) in sources[number - 1]
        assert all(string in draft.example.answer for string in draft.example.must_contain)


def test_the_answer_stands_in_either_place(corpus):
    drafts = list(KINDS[ExampleKind.GROUNDED](corpus))

    assert {cited_numbers(draft.example.answer)[0] for draft in drafts} == {1, 2}


def test_prompts_hold_no_addresses(corpus):
    prompts = [draft.example.prompt[0].content for kind in KINDS.values() for draft in kind(corpus)]

    assert not [prompt for prompt in prompts if "http://" in prompt]


def test_a_closed_book_question_has_no_sources_and_its_answer_no_number(corpus):
    for draft in KINDS[ExampleKind.CLOSED_BOOK](corpus):
        assert sources_of(draft.example.prompt[0].content) == []
        assert cited_numbers(draft.example.answer) == []


def test_a_link_is_given_by_title_and_number_of_the_right_document(corpus):
    titles = {document.post_url: document.post_title for document in corpus.documents}
    drafts = [d for d in KINDS[ExampleKind.URL](corpus) if d.example.template.startswith("url.")]

    assert drafts
    for draft in drafts:
        title = titles[draft.example.document_url]
        (number,) = cited_numbers(draft.example.answer)
        assert draft.example.answer == f"See “{title}” [{number}]."
        assert sources_of(draft.example.prompt[0].content)[number - 1].startswith(title)


def test_who_does_not_ask_for_a_page_is_given_none_from_the_same_sources(corpus):
    drafts = list(KINDS[ExampleKind.URL](corpus))
    asking = [d.example for d in drafts if d.example.template.startswith("url.")]
    others = [d.example for d in drafts if not d.example.template.startswith("url.")]

    assert others
    assert not [example for example in others if example.answer.startswith("See ")]
    shown = {tuple(sources_of(example.prompt[0].content)) for example in asking}
    assert {tuple(sources_of(example.prompt[0].content)) for example in others} <= shown


def test_a_refused_question_is_not_answered_by_the_sources_in_its_prompt(corpus):
    answers = {
        draft.example.question: draft.example.must_contain for draft in KINDS[ExampleKind.GROUNDED](corpus)
    }

    for draft in KINDS[ExampleKind.REFUSAL](corpus):
        sources = " ".join(sources_of(draft.example.prompt[0].content))
        assert draft.example.answer == REFUSAL
        assert sources
        assert not [string for string in answers.get(draft.example.question, []) if string in sources]


def test_some_refused_questions_have_an_answerable_twin(corpus):
    refused = {draft.example.question for draft in KINDS[ExampleKind.REFUSAL](corpus)}
    answered = {draft.example.question for draft in KINDS[ExampleKind.GROUNDED](corpus)}

    assert refused & answered


def test_things_that_the_site_has_are_not_foreign(corpus):
    assert corpus.holds("bat walk")
    assert not corpus.holds("bowling alley")


@pytest.mark.parametrize(
    ("heading", "inside"),
    [
        ("Opening hours", "opening hours"),
        ("Caspian Ruddle", "Caspian Ruddle"),
        ("The museum", "the museum"),
        ("REST API", "REST API"),
        ("Names of the bats", "names of the bats"),
    ],
)
def test_headings_are_lowered_unless_they_are_names(corpus, heading, inside):
    assert corpus.lower_first(heading) == inside


def test_a_topic_takes_the_article_that_the_text_gives_it(corpus):
    assert corpus.as_topic("Press officer", "Ask the press officer.") == "the press officer"
    assert corpus.as_topic("Winner of the contest", "") == "the winner of the contest"
    assert corpus.as_topic("Gift vouchers", "Gift vouchers stay.") == "gift vouchers"


def test_the_same_two_sources_lie_in_one_order_and_are_asked_about_in_turn(corpus):
    families: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for draft in KINDS[ExampleKind.GROUNDED](corpus):
        prompt = tuple(sources_of(draft.example.prompt[0].content))
        families.setdefault(draft.family, []).append((prompt, cited_numbers(draft.example.answer)[0]))

    assert all(len({prompt for prompt, _ in rows}) == 1 for rows in families.values())
    assert any({number for _, number in rows} == {1, 2} for rows in families.values())


def test_a_question_beyond_two_sources_is_a_relative_of_those_that_they_answer(corpus):
    grounded = {draft.family for draft in KINDS[ExampleKind.GROUNDED](corpus)}
    refused = {draft.family for draft in KINDS[ExampleKind.REFUSAL](corpus) if draft.example.document_url}

    assert refused
    assert refused <= grounded


def test_examples_have_identities_of_their_own(corpus):
    ids = [draft.example.id for make in KINDS.values() for draft in make(corpus)]

    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("heading", "inside"),
    [
        ("We’re not done yet", "“We’re not done yet”"),
        ("3. Designate a note taker", "designate a note taker"),
        ("Step 3: Recruit users", "recruit users"),
        ("A stable foundation", "a stable foundation"),
        ("What HTTPS does", "what HTTPS does"),
        ("Data drives what we make", "“Data drives what we make”"),
        ("9. Be cool", "“Be cool”"),
        ("There is still a place for planning", "“There is still a place for planning”"),
        ("What to bring", "what to bring"),
        ("Building your own raft", "building your own raft"),
        ("cloud.gov", "cloud.gov"),
    ],
)
def test_a_heading_that_is_a_sentence_is_quoted_and_loses_its_number(corpus, heading, inside):
    assert corpus.as_topic(heading, "Ask the cloud.gov team.") == inside


def test_captions_and_addresses_are_no_facts(corpus):
    content = (
        "## Ada Mill\n\nAda Mill, miller at the mill\n\n## The map\n\nIt lies at https://s.example/map today."
    )
    document = corpus.documents[0].model_copy(update={"post_content": content})

    assert Corpus([document]).facts == ()


def test_a_heading_that_says_nothing_alone_is_not_asked_for_as_a_page(corpus):
    content = (
        "## Conclusion\n\nGo and see it for yourself.\n\n## Elm paddles\n\nElm paddles last for thirty years."
    )
    document = corpus.documents[0].model_copy(
        update={"post_title": "Wheel", "post_content": content, "post_url": "http://s/w"}
    )

    asked = {
        draft.example.question
        for draft in KINDS[ExampleKind.URL](Corpus([*corpus.documents, document]))
        if draft.example.template.startswith("url.")
    }

    assert not [question for question in asked if "onclusion" in question]
    assert [question for question in asked if "elm paddles" in question]


def test_a_mark_of_a_note_is_no_citation_and_so_no_fact(corpus):
    content = "## Ada Mill\n\nAda Mill ground rye[2] for sixty years."
    document = corpus.documents[0].model_copy(update={"post_content": content})

    assert Corpus([document]).facts == ()


@pytest.mark.parametrize("title", ["Untitled", "The “old” mill"])
def test_no_page_is_named_by_a_title_that_does_not_stand_in_quotation_marks(corpus, title):
    document = corpus.documents[0].model_copy(update={"post_title": title})

    assert list(KINDS[ExampleKind.URL](Corpus([document]))) == []


def test_nobody_asks_about_what_is_untitled(corpus):
    document = corpus.documents[0].model_copy(
        update={"post_title": "Untitled", "post_content": "The mill was built in 1687 by two brothers."}
    )

    assert Corpus([document]).facts == ()


def test_search_is_remembered_and_gives_what_it_gave(corpus):
    first = corpus.search("What does a winter ticket cost?", 2)
    first.clear()

    assert corpus.search("What must I pay: a winter ticket's cost?", 2) == corpus.search(
        "What does a winter ticket cost?", 2
    )
    assert corpus.search("What does a winter ticket cost?", 2)


def test_a_corpus_without_a_document_neither_shows_nor_asks_for_it(corpus):
    url = corpus.documents[0].post_url

    other = corpus.without({url})

    assert url not in {fact.url for fact in other.facts}
    assert url not in {passage.url for passage in other.search("winter ticket gift vouchers prices", 10)}
    assert len(other.site_documents) == len(corpus.documents)


def test_a_corpus_about_a_document_asks_for_it_alone_and_shows_all(corpus):
    url = corpus.documents[0].post_url

    other = corpus.about({url})

    assert {fact.url for fact in other.facts} == {url}
    assert other.passages == corpus.passages
