from __future__ import annotations

import pytest

from finetune_chat.answering.filter import LinkFilter
from finetune_contract.sections import Passage

TICKETS = "https://mill.example/tickets/"
PASSAGES = [
    Passage("Ticket prices", "Winter", "Adults pay £7.40.", TICKETS),
    Passage(
        "The API",
        "",
        "It listens at http://mill.example:8417/v1. Mail hello@mill.example.",
        "https://mill.example/api/",
    ),
]

TABLE = [
    ("plain words", "Adults pay £7.40.", "Adults pay £7.40."),
    ("a citation of a source", "£7.40 [1].", "£7.40 [1]."),
    ("two citations", "Both [1][2]", "Both [1][2]"),
    ("a citation of nothing", "£7.40 [3].", "£7.40."),
    ("a citation of zero", "£7.40 [0] today", "£7.40 today"),
    ("a citation that is cut off", "£7.40 [1", "£7.40"),
    ("an address of a source", f"See {TICKETS} please", f"See {TICKETS} please"),
    (
        "an address of a source at the end",
        "See https://mill.example/tickets.",
        "See https://mill.example/tickets.",
    ),
    (
        "an address that a source mentions",
        "Use http://mill.example:8417/v1.",
        "Use http://mill.example:8417/v1.",
    ),
    ("an invented address", "See https://mill.example/prices now", "See  now"),
    ("an invented address at the end", "See www.example.org/x.", "See ."),
    ("an address without a scheme", "See mill.example/prices", "See"),
    (
        "an address without a scheme after a letter of no host",
        "Menüevil.example/a 価格はevil.example/a",
        "Menü 価格は",
    ),
    ("an address without a scheme after dots", "Look …evil.example/a ..evil.example/a", "Look … .."),
    ("a mail address before a slash", "Ask ada@mail.mill.example/post", "Ask ada@mail.mill.example/post"),
    ("a beginning of a known address", "See https://mill.example/tick", "See"),
    ("a link to a source", f"Read [the prices]({TICKETS}).", "Read the prices [1]."),
    (
        "a link to a known address",
        "[here](http://mill.example:8417/v1)",
        "here (http://mill.example:8417/v1)",
    ),
    ("a link to nowhere", "Read [the prices](https://evil.example/a(b)).", "Read the prices."),
    ("a link that is cut off", "Read [the prices](https://ev", "Read"),
    ("an e-mail address", "Write to hello@mill.example now", "Write to hello@mill.example now"),
    (
        "numbers, dates and either/or",
        "3.5 km, 1.2.2025, and/or 9:30-17:00",
        "3.5 km, 1.2.2025, and/or 9:30-17:00",
    ),
    ("brackets that are words", "A [sic] word, x[i] = 1", "A [sic] word, x[i] = 1"),
    ("lines", "One\n\n- two\n- three [1]\n", "One\n\n- two\n- three [1]"),
]


@pytest.mark.parametrize(("text", "shown"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_only_true_links_come_through_however_the_text_is_cut(text: str, shown: str, size: int) -> None:
    links = LinkFilter(PASSAGES)

    out = (
        "".join(links.feed(text[start : start + size]) for start in range(0, len(text), size))
        + links.finish()
    )

    assert out.rstrip() == shown


def test_nothing_that_is_taken_back_was_ever_shown() -> None:
    links = LinkFilter(PASSAGES)

    shown = [links.feed(letter) for letter in "Look at https://evil.example/a and [9]"]

    assert "http" not in "".join(shown)
    assert "[" not in "".join(shown)


def test_words_come_through_one_by_one() -> None:
    links = LinkFilter(PASSAGES)

    assert [links.feed(piece) for piece in ("Adults", " pay", " £7.40", " [1", "]", " in")] == [
        "",
        "Adults",
        " pay",
        " £7.40",
        "",
        " [1]",
    ]


def test_what_was_removed_is_counted() -> None:
    links = LinkFilter(PASSAGES)

    links.feed("https://evil.example [8] [1] www.x.org/y ")
    links.finish()

    assert (links.removed_addresses, links.removed_citations) == (2, 1)
