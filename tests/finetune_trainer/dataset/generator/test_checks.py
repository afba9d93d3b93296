"""What may be taught: tables of answers and questions with the reason why not. Pure."""

from __future__ import annotations

import pytest

from finetune_contract.prompt import REFUSAL
from finetune_contract.sections import Passage
from finetune_trainer.dataset.generator import checks
from finetune_trainer.dataset.generator.language import alphabet, is_same_language, language
from finetune_trainer.dataset.generator.wording import read_pairs, section_message

SECTION = Passage(
    "Tickets",
    "Winter prices",
    "Adults pay £7.40 in the winter months, from 3 November to 28 February. Children under twelve come in free. "
    "Write to [the office](http://s/contact) at office@mill.example, or see www.mill.example/tickets.",
    "http://s/1",
)
QUESTION = "What do adults pay in winter?"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("Adults pay £7.40 in the winter months.", ""),
        ("Adults pay £7.40.", ""),
        ("Children under twelve come in free.", ""),
        ("Write to office@mill.example for winter prices.", ""),
        ("Adults pay.", checks.TOO_SHORT),
        ("They pay little.", checks.TOO_SHORT),
        ("pay " * 401, checks.TOO_LONG),
        ("Adults pay £7.50 in the winter months.", checks.INVENTED),
        ("Adults pay £7 in the winter months.", checks.INVENTED),
        ("Adults pay £7.40 from 3 December to 28 February.", checks.INVENTED),
        ("Children under eleven come in free.", checks.INVENTED),
        ("Adults pay £7.40, see http://s/contact for winter prices.", checks.INVENTED),
        ("Write to info@mill.example for winter prices.", checks.INVENTED),
        ("See www.mill.example/tickets for winter prices.", ""),
        ("See www.mill.example/ticket for winter prices.", checks.INVENTED),
        ("What do adults pay in winter?", checks.COPY),
        ("Adults pay in winter, adults do pay.", checks.COPY),
        ("The visitors love dogs, cats, horses and adults.", checks.NOT_GROUNDED),
        ("Die Erwachsenen zahlen im Winter £7.40 und die Kinder sind frei.", checks.OTHER_LANGUAGE),
        ("Взрослые платят £7.40 зимой и больше никто.", checks.OTHER_LANGUAGE),
        ("According to the text, adults pay £7.40 in winter.", checks.SPEAKS_OF_TEXT),
        (REFUSAL, checks.REFUSES),
    ],
)
def test_an_answer_is_held_to_its_section(answer: str, fault: str) -> None:
    assert checks.answer_fault(answer, QUESTION, SECTION) == fault


@pytest.mark.parametrize(
    ("question", "fault"),
    [
        (QUESTION, ""),
        ("Who comes in free, and from which day in November?", ""),
        ("Prices?", checks.NO_QUESTION),
        ("What do adults pay [1]?", checks.NO_QUESTION),
        ("What does the text say about prices?", checks.SPEAKS_OF_TEXT),
        ("What do adults pay in 2031?", checks.INVENTED),
        ("Was kostet der Eintritt für die Erwachsenen und wird er im Winter teurer?", checks.OTHER_LANGUAGE),
    ],
)
def test_a_question_is_one_of_a_reader(question: str, fault: str) -> None:
    assert checks.question_fault(question, SECTION) == fault


def test_only_what_stands_in_the_prompt_can_be_told() -> None:
    long = Passage(
        "Mill", "", "word " * 100 + "\n\nThe wheel was built in 1784 by two brothers.", "http://s/2"
    )

    assert (
        checks.answer_fault("The wheel was built in 1784 by two brothers.", "When was it?", long)
        == checks.INVENTED
    )
    assert "1784" not in section_message(long)


def test_languages_are_told_apart_only_where_it_is_clear() -> None:
    assert language("The mill is open from ten to four and it is closed on Monday.") == "en"
    assert language("La rueda es del molino y los niños no pagan por la entrada.") == "es"
    assert language("Caspian Ruddle") == ""
    assert alphabet("мельница 12") == "CYRILLIC"
    assert is_same_language("£7.40", "The mill is open from ten to four.")


@pytest.mark.parametrize(
    ("content", "answers"),
    [
        ('{"pairs": [{"questions": ["Q one two?"], "answer": "A"}]}', ["A"]),
        ('<think>{"pairs": no}</think>\n```json\n[{"questions": ["Q"], "answer": "A"}]\n```', ["A"]),
        ('Here you are: {"pairs": []}', []),
        ('{"pairs": [{"questions": ["Q"], "answer": "cut o', None),
        ("I cannot do that.", None),
        ("", None),
        ("[" * 100_000, None),
    ],
)
def test_pairs_are_found_in_what_a_model_says(content: str, answers: list[str] | None) -> None:
    found = read_pairs(content)

    assert (None if found is None else [pair.answer for pair in found]) == answers
