"""The generator as a whole, against a fake endpoint: what is kept, what it costs, and how it ends."""

from __future__ import annotations

import json
import threading

import pytest
from werkzeug import Response

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.generated import make_generated
from finetune_trainer.dataset.generator import write_pairs as module
from finetune_trainer.dataset.generator.endpoint import ChatEndpoint
from finetune_trainer.dataset.generator.write_pairs import NOT_FOUND, Written, check_generator, write_pairs
from finetune_trainer.errors import Preempted, SourceRejected, SourceUnavailable
from finetune_trainer.stores.local_folder import LocalFolder

SECTIONS = {
    "Ticket prices": "Adults pay £7.40 for a ticket in the winter months, and children under twelve come in free.",
    "Opening hours": "The mill opens at 09:40 in summer, and the last visitors leave it at about 17:20 each day.",
    "Bat walks": "A place on a bat walk costs £6.80, and a cup of hot cocoa at the end is part of it.",
    "Stone dressing": "Caspian Ruddle cuts the stones of the mill by hand, twice a year, before the grain comes in.",
}
PAIRS = {
    "Ticket prices": (["What do adults pay for a winter ticket?", "How much is a ticket in winter for adults?"],
                      "Adults pay £7.40 in the winter months."),
    "Opening hours": (["When does the mill open in summer?"], "The mill opens at 09:40 in summer. [1]"),
    "Bat walks": (["What does a bat walk cost?"], "A place on a bat walk costs £9.80."),
    "Stone dressing": (["Who cuts the stones of the mill?"], "Caspian Ruddle cuts the stones by hand."),
}  # fmt: skip


def written_for(section: str) -> str:
    title = section.splitlines()[0].removeprefix("Page: ")
    questions, answer = PAIRS[title]
    return json.dumps({"pairs": [{"questions": questions, "answer": answer}]})


@pytest.fixture
def corpus() -> Corpus:
    return Corpus(
        [
            Document(
                source="site",
                post_id=title,
                post_title=title,
                post_excerpt="",
                post_content=text,
                post_date="2025-01-01T00:00:00Z",
                post_author="",
                post_categories=[],
                post_tags=[],
                post_url=f"http://s/{number}",
            )
            for number, (title, text) in enumerate(SECTIONS.items())
        ]
    )


def write(corpus, model, folder, /, stop_requested=lambda: False, waits=None, **changes) -> Written:
    endpoint = model.endpoint(waits, **changes)
    store = LocalFolder(folder)
    return write_pairs(corpus, model.spec(**changes), endpoint, store, lambda *_, **__: None, stop_requested)


def test_what_passes_is_kept_and_what_does_not_is_counted_with_its_reason(model, corpus, tmp_path):
    model.say = written_for

    written = write(corpus, model, tmp_path)

    assert [pair.passage.title for pair in written.pairs] == [
        "Ticket prices",
        "Opening hours",
        "Stone dressing",
    ]
    assert written.pairs[1].answer == "The mill opens at 09:40 in summer."
    sections, pairs = written.steps
    assert (sections.seen, sections.kept, dict(sections.dropped)) == (4, 4, {})
    assert (pairs.seen, pairs.kept) == (4, 3)
    assert dict(pairs.dropped) == {"a number, date or address is not in the section": 1}
    assert sections.is_balanced
    assert pairs.is_balanced


def test_the_drafts_are_grounded_and_cite_their_section(model, corpus, tmp_path):
    model.say = written_for
    written = write(corpus, model, tmp_path)

    drafts = list(make_generated(corpus.with_written(written.pairs)))

    assert {draft.example.kind for draft in drafts} == {ExampleKind.GENERATED}
    for draft in drafts:
        number = draft.example.answer[-2]
        assert f"\n[{number}] " in draft.example.prompt[-1].content
    assert [draft.reserved for draft in drafts] == [False, True, False, False]
    assert drafts[0].example.must_contain == ["£7.40"]
    assert list(make_generated(corpus)) == []


def test_a_second_run_asks_nothing_and_gives_the_same(model, corpus, tmp_path):
    model.say = written_for
    first = write(corpus, model, tmp_path)
    asked = len(model.asked)

    second = write(corpus, model, tmp_path)

    assert (asked, len(model.asked)) == (4, 4)
    assert (second.pairs, second.steps, second.requests) == (first.pairs, first.steps, 0)


def test_another_model_is_asked_anew(model, corpus, tmp_path):
    write(corpus, model, tmp_path)
    write(corpus, model, tmp_path, model="other")

    assert [body["model"] for body in model.asked] == ["writer"] * 4 + ["other"] * 4


def test_the_budget_holds_and_the_next_run_asks_on(model, corpus, tmp_path):
    model.say = written_for

    first = write(corpus, model, tmp_path, maxRequests=3)
    assert len(model.asked) == 3
    second = write(corpus, model, tmp_path, maxRequests=3)

    assert dict(first.steps[0].dropped) == {"beyond maxRequests": 1}
    assert len(model.asked) == 4
    assert second.steps[0].kept == 4


def test_at_most_two_questions_are_on_their_way(model, corpus, tmp_path):
    write(corpus, model, tmp_path)

    assert 1 <= model.most_in_flight <= 2


def test_answers_before_a_failure_are_kept(model, corpus, tmp_path):
    model.say = written_for
    down = Response("down", 503)
    model.before = lambda request, body: down if len(model.asked) > 2 else None

    with pytest.raises(SourceUnavailable, match=r"answers 503, 5 times; .* answers so far are kept"):
        write(corpus, model, tmp_path, waits=[])
    model.before = lambda request, body: None
    model.asked.clear()
    write(corpus, model, tmp_path)

    assert len(model.asked) == 2


def test_a_refused_key_midway_stops_the_stage(model, corpus, tmp_path):
    model.before = lambda request, body: Response('{"error": "no"}', 401, mimetype="application/json")

    with pytest.raises(SourceRejected, match=r"apiKeySecretRef"):
        write(corpus, model, tmp_path)


def test_told_to_stop_it_keeps_what_it_has(model, corpus, tmp_path):
    with pytest.raises(Preempted, match="answers so far are kept"):
        write(corpus, model, tmp_path, stop_requested=lambda: True)
    before = len(model.asked)
    write(corpus, model, tmp_path)

    assert 1 <= before <= 2
    assert len(model.asked) == 4


def test_told_to_stop_it_does_not_wait_for_an_answer_that_does_not_come(model, corpus, tmp_path, monkeypatch):
    answer_comes = threading.Event()

    class Silent(ChatEndpoint):
        def ask(self, *_: object) -> str:
            answer_comes.wait()
            return ""

    monkeypatch.setattr(module, "LATE_SECONDS", 0.01)
    monkeypatch.setattr(module, "LOOK_UP_SECONDS", 0.01)
    endpoint = Silent(model.spec(), {})
    before = set(threading.enumerate())
    try:
        with pytest.raises(Preempted):
            write_pairs(
                corpus, model.spec(), endpoint, LocalFolder(tmp_path), lambda *_, **__: None, lambda: True
            )

        asking = [thread for thread in set(threading.enumerate()) - before if thread.name == "generator"]
        assert len(asking) == 2
        assert all(thread.daemon for thread in asking)
    finally:
        answer_comes.set()


def test_an_endpoint_that_is_down_is_a_fault_only_when_it_was_never_asked(model, corpus, tmp_path, caplog):
    store = LocalFolder(tmp_path)
    model.say = written_for
    model.server.stop()
    try:
        with pytest.raises(SourceUnavailable, match=r"generator.url: .* no answer"):
            check_generator(model.endpoint(), model.spec(), store)
    finally:
        model.server.start()
    first = write(corpus, model, tmp_path)
    model.server.stop()
    try:
        check_generator(model.endpoint(), model.spec(), store)
        second = write(corpus, model, tmp_path)
    finally:
        model.server.start()

    assert "what it said before is used" in caplog.text
    assert second.pairs == first.pairs


def test_a_refused_key_is_a_fault_whatever_is_kept(model, corpus, tmp_path):
    write(corpus, model, tmp_path)
    model.before = lambda request, body: Response('{"error": "no"}', 401, mimetype="application/json")

    with pytest.raises(SourceRejected, match="apiKeySecretRef"):
        check_generator(model.endpoint(), model.spec(), LocalFolder(tmp_path))


def test_an_answer_that_is_no_json_is_counted_and_not_asked_again(model, corpus, tmp_path):
    model.say = lambda section: "I would rather not."

    written = write(corpus, model, tmp_path)
    write(corpus, model, tmp_path)

    assert dict(written.steps[0].dropped) == {"the answer is not the JSON that was asked for": 4}
    assert len(model.asked) == 4


def test_the_same_question_is_taught_once(model, corpus, tmp_path):
    question = "What does the mill have in summer and in winter?"
    model.say = lambda section: json.dumps(
        {"pairs": [{"questions": [question, question], "answer": section.splitlines()[-1]}]}
    )

    written = write(corpus, model, tmp_path)

    assert len(written.pairs) <= 1
    assert set(written.steps[1].dropped) <= {"the question was asked already", NOT_FOUND}
    assert all(pair.questions == (question,) for pair in written.pairs)


def test_a_short_section_is_not_asked_about(model, tmp_path, corpus):
    short = corpus.documents[0].model_copy(update={"post_content": "Closed today."})

    written = write(Corpus([short]), model, tmp_path)

    assert model.asked == []
    assert dict(written.steps[0].dropped) == {"too short to ask about": 1}
