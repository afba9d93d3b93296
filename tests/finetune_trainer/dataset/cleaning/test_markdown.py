"""Markdown that is Markdown already: code stays as it is, machinery goes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.dataset.cleaning.markdown import clean_markdown, outside_code


def test_code_keeps_every_byte_and_prose_loses_machinery():
    markdown = (
        "Text<!-- gone -->\u00a0here   \n\n\n\n{{< note >}}Mind this.{{< /note >}}\n"
        "```html\n<!-- kept -->  \n\n\n<script>kept</script>\n```\n"
        "<script>gone()</script>`<!-- kept -->` {% raw %}end{% endraw %}\n"
    )

    assert clean_markdown(markdown) == (
        "Text here\n\nMind this.\n```html\n<!-- kept -->  \n\n\n<script>kept</script>\n```\n`<!-- kept -->` end"
    )


@pytest.mark.parametrize(
    ("markdown", "changed"),
    [
        ("a\n~~~\na\n```\n~~~\na", "X\n~~~\na\n```\n~~~\nX"),
        ("a\n````\n```\na\n````\na", "X\n````\n```\na\n````\nX"),
        ("a `a` ``a`a`` a", "X `a` ``a`a`` X"),
        ("a\n```\na", "X\n```\na"),
        ("1. a\n\n    ```\n    a\n    ```\n\na", "1. X\n\n    ```\n    a\n    ```\n\nX"),
        ("> ```\n> a\n> ```\na", "> ```\n> a\n> ```\nX"),
    ],
)
def test_code_is_told_from_prose(markdown, changed):
    assert outside_code(markdown, lambda text: text.replace("a", "X")) == changed


def test_line_ends_are_the_same_on_every_machine():
    assert clean_markdown("a\r\nb\rc\n") == "a\nb\nc"
    assert (
        clean_markdown("a\u2028b\u2029c\x85d\x0ce\n```\na\u2028b\x85c\n```")
        == "a\nb\nc d e\n```\na\nb c\n```"
    )


@settings(deadline=None)
@given(st.text())
def test_no_text_makes_it_fail(markdown):
    cleaned = clean_markdown(markdown)

    assert "\x00" not in cleaned
    assert cleaned.splitlines() == (cleaned.split("\n") if cleaned else [])
