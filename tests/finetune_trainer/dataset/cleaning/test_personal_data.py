"""Personal data: what is found, what is no hit, what each policy does, and that no value reaches the report."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import PersonalDataPolicy
from finetune_trainer.dataset.cleaning.personal_data import (
    EXAMPLES_PER_KIND,
    Finding,
    find_personal_data,
    guard_personal_data,
)

FLAG, REDACT, OFF = PersonalDataPolicy.FLAG, PersonalDataPolicy.REDACT, PersonalDataPolicy.OFF
CARD = "4111 1111 1111 1111"
IBAN = "DE89 3704 0044 0532 0130 00"


def document(content: str, url: str = "https://www.mill.example/news/", **changes: str) -> Document:
    fields = {
        "source": "site",
        "post_id": url,
        "post_title": "News",
        "post_excerpt": "",
        "post_date": "2025-01-01T00:00:00Z",
        "post_author": "Ada",
        "post_url": url,
    }
    return Document(**{**fields, "post_content": content, **changes}, post_categories=[], post_tags=[])


def redacted(content: str) -> str:
    return guard_personal_data([document(content)], REDACT)[0][0].post_content


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Write to rosa.hale+mill@tidebox.example today.", "Write to [e-mail] today."),
        ("Ring +44 1632 960 123.", "Ring [phone]."),
        ("Ring 01632 960 123 or (555) 010-0199", "Ring [phone] or [phone]"),
        ("Tel: 9601234, open daily", "Tel: [phone], open daily"),
        (f"Pay to {IBAN}.", "Pay to [IBAN]."),
        (f"Card {CARD}.", "Card [card number]."),
        ("SSN 219-09-9999", "SSN [social security number]"),
        ("Seen from 81.2.69.142 at noon", "Seen from [IP address] at noon"),
        ("and 2a02:26f0:1700::17 too", "and [IP address] too"),
        ("[rosa@tidebox.example](mailto:rosa@tidebox.example)", "[e-mail]"),
        ("[Write to Rosa](mailto:rosa@tidebox.example?subject=x)", "Write to Rosa [e-mail]"),
        ("[Ring us](tel:+441632960123)", "Ring us [phone]"),
        (
            "[![Mail](https://a.example/m.png)](mailto:rosa@tidebox.example)",
            "![Mail](https://a.example/m.png) [e-mail]",
        ),
    ],
)
def test_personal_data_becomes_a_word(text, left):
    assert redacted(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "Tickets cost £1,250.00 or $1200-1500, 3500000 in all.",
        "Open 09:00-17:30, Mon-Fri 0900-1730.",
        "On 2024-05-12, 12/05/2024, 12.05.2024 and in 1985-1990.",
        "ISBN 978-0-306-40615-7 and 0-306-40615-2",
        "Version 1.2.3.4, chapter 3.1.2.4, hosts 192.168.0.12, 127.0.0.1 and 198.51.100.7",
        "At 12:30:45 std::map a::b 2001:db8::1",
        "Post 4111 1111 1111 1112 and DE88 3704 0044 0532 0130 00 are mistyped",
        "[page](https://shop.example/p/01632960123?id=4111111111111111)",
        "user@host and @handle and a@b and git@tidebox",
        "`rosa@tidebox.example`",
        "```\nrosa@tidebox.example +44 1632 960 123\n```",
        "Write to info@mill.example or desk@post.mill.example or you@example.com",
        "Order 20240001234 of 555 123 units; mast 0123 is 01 23 high",
    ],
)
def test_numbers_that_are_no_ones_and_the_sites_own_addresses_stay(text):
    assert redacted(text) == text


def test_numbers_on_the_contact_page_are_published_wherever_they_stand():
    contact = document("Ring +44 1632 960 123.", "https://mill.example/contact/")
    news = document("Rosa: +44 (1632) 960-123 or +44 1632 960 999")

    guarded, found = guard_personal_data([contact, news], REDACT)

    assert [entry.post_content for entry in guarded] == [
        contact.post_content,
        "Rosa: +44 (1632) 960-123 or [phone]",
    ]
    assert found.counts == {"phone": 1}


def test_flagging_counts_and_hints_but_changes_nothing():
    documents = [
        document("rosa@tidebox.example, rosa@tidebox.example"),
        document("none"),
        document(f"card {CARD}"),
    ]

    guarded, found = guard_personal_data(documents, FLAG)

    assert guarded == documents
    assert found.counts == {"card number": 1, "e-mail": 2}
    assert found.documents == {"card number": 1, "e-mail": 1}
    assert found.examples[0] == Finding("e-mail", "r…@t….example", documents[0].post_url)
    assert "tidebox" not in repr(found)
    assert "1111 1111" not in repr(found)


def test_a_crowd_of_hits_gives_few_examples():
    _, found = guard_personal_data([document(" ".join(f"p{n}@tidebox.example" for n in range(99)))], FLAG)

    assert found.counts == {"e-mail": 99}
    assert len(found.examples) == EXAMPLES_PER_KIND


def test_titles_and_excerpts_are_guarded_too():
    [guarded], found = guard_personal_data(
        [document("x", post_title="Ask rosa@tidebox.example", post_excerpt="rosa@tidebox.example")], REDACT
    )

    assert (guarded.post_title, guarded.post_excerpt) == ("Ask [e-mail]", "[e-mail]")
    assert found.counts == {"e-mail": 2}


def test_without_a_policy_only_secrets_go():
    text = f"rosa@tidebox.example {CARD} AKIA" + "Q7W3" * 4

    [guarded], found = guard_personal_data([document(text)], OFF)

    assert guarded.post_content == f"rosa@tidebox.example {CARD} [secret]"
    assert found.counts == {"AWS key": 1}
    assert found.examples[0].hint == ""


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "rosa@tidebox.example ",
                "+44 1632 960 123 ",
                CARD,
                " [",
                "](mailto:",
                ")",
                "`",
                "```\n",
                "1.2.",
                "::",
            ]
        )
        | st.text(max_size=6),
        max_size=20,
    ).map("".join)
)
def test_redacting_never_fails_and_twice_finds_nothing_more(text):
    text = text.replace("\x00", "").encode("utf-8", "replace").decode()
    once = redacted(text)

    again, found = guard_personal_data([document(once)], REDACT)

    assert again[0].post_content == once
    assert found.counts == {}
    assert all(text[start:end] for _, start, end in find_personal_data(text))
