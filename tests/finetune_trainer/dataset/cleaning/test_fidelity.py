"""How much of what WordPress and its builders make is found again in the Markdown, counted over all shapes."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from finetune_contract.sections import split_sections
from finetune_trainer.dataset.cleaning.html import clean_content, clean_html

_spec = importlib.util.spec_from_file_location("theme_shapes", Path(__file__).with_name("theme_shapes.py"))
assert _spec is not None
assert _spec.loader is not None
shapes = importlib.util.module_from_spec(_spec)
sys.modules["theme_shapes"] = shapes
_spec.loader.exec_module(shapes)

BLOCK = re.compile(r"^(`{3,})([^`\n]*)\n(.*?)\n\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[(?:!\[[^\]]*\]\([^)]*\)|[^\[\]])*\]\(([^()\s]+)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^()\s]+)\)")
CLEANED = {shape.name: clean_html(shape.html, shapes.BASE) for shape in shapes.SHAPES}


def share_found(wanted: Iterable[str], found: Iterable[str]) -> float:
    """Of everything wanted; what comes twice must be found twice."""
    wanted_numbers, found_numbers = Counter(wanted), Counter(found)
    return (wanted_numbers & found_numbers).total() / wanted_numbers.total()


def words_of(markdown: str) -> list[str]:
    """As a reader sees them: without addresses."""
    return re.findall(r"\w+", re.sub(r"\]\([^()\s]*\)", "]", re.sub(r"(?m)^`{3,}[\w+#.-]*$", "", markdown)))


def cells_of(markdown: str) -> list[str]:
    rows = [line for line in markdown.splitlines() if line.startswith("|") and "---" not in line]
    return [cell.strip() for row in rows for cell in re.split(r"(?<!\\)\|", row)[1:-1] if cell.strip()]


def all_named(field: str) -> list[str]:
    return [f"{shape.name}: {value}" for shape in shapes.SHAPES for value in getattr(shape, field)]


@pytest.mark.parametrize("shape", shapes.SHAPES, ids=lambda shape: shape.name)
def test_each_word_of_a_shape_stands_in_its_markdown_and_none_besides(shape):
    assert words_of(CLEANED[shape.name]) == words_of(shape.words)


def test_links_are_kept_in_all_shapes():
    found = [f"{name}: {url}" for name, markdown in CLEANED.items() for url in LINK.findall(markdown)]

    assert share_found(all_named("links"), found) >= 0.995
    assert share_found(found, all_named("links")) >= 0.995


def test_pictures_are_kept_in_all_shapes():
    found = [f"{name}: {url}" for name, markdown in CLEANED.items() for _, url in IMAGE.findall(markdown)]

    assert share_found(all_named("images"), found) >= 0.995
    assert share_found(found, all_named("images")) >= 0.995


@pytest.mark.parametrize("shape", shapes.SHAPES, ids=lambda shape: shape.name)
def test_code_is_kept_byte_for_byte_with_its_language(shape):
    assert [(language, code) for _, language, code in BLOCK.findall(CLEANED[shape.name])] == list(shape.code)


def test_table_cells_are_kept_in_all_shapes():
    found = [f"{name}: {cell}" for name, markdown in CLEANED.items() for cell in cells_of(markdown)]

    assert share_found(all_named("cells"), found) >= 0.99


@pytest.mark.parametrize("shape", shapes.SHAPES, ids=lambda shape: shape.name)
def test_headings_are_where_the_sections_are_cut(shape):
    lines = CLEANED[shape.name].splitlines()

    assert [line for line in lines if re.match(r"#{1,6} ", line)] == list(shape.headings)
    texts = {re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.lstrip("# ")) for heading in shape.headings}
    assert {section.heading for section in split_sections(CLEANED[shape.name])} <= {"", *texts}


@pytest.mark.parametrize("shape", shapes.SHAPES, ids=lambda shape: shape.name)
def test_no_tag_and_no_request_of_the_site_is_left_outside_code(shape):
    prose = BLOCK.sub("", CLEANED[shape.name])

    assert not re.search(r"</?[a-z][^<>]*>", prose)
    assert "rest_route=" not in prose
    assert "utm_" not in prose


def test_both_shapes_of_a_page_builder_give_the_same():
    expected = (
        "## Grinding days\n\nEach **Tuesday** from ten.\n\n![Flour on a sieve](https://mill.example/day.jpg)\n\n"
        "[Book](https://mill.example/book)\n\nDogs?\n\nOn a lead."
    )

    assert clean_html(shapes.elementor(True), shapes.BASE) == expected
    assert clean_html(shapes.elementor(False), shapes.BASE) == expected


def test_a_post_with_nothing_but_other_posts_gives_no_word_and_is_reported():
    items = "".join(f'<li><a href="/{n}/">Other post number {n} with more words</a></li>' for n in range(30))

    cleaned = clean_content(f'<ul class="wp-block-latest-posts">{items}</ul>', shapes.BASE)

    assert cleaned.markdown == ""
    assert "hardly any text" in cleaned.doubt


def test_a_post_inside_a_form_is_not_lost():
    html = "<form>" + "<p>Twenty words and more stand in this form by mistake.</p>" * 5 + "<input></form>"

    cleaned = clean_content(html, shapes.BASE)

    assert cleaned.markdown.count("Twenty words") == 5
    assert "without links" in cleaned.doubt


def test_a_post_of_pictures_keeps_them_and_is_reported():
    cleaned = clean_content(
        "".join(f'<figure><img src="/{n}.jpg" alt=""></figure>' for n in range(9)), shapes.BASE
    )

    assert len(IMAGE.findall(cleaned.markdown)) == 9
    assert cleaned.doubt


def test_an_ordinary_post_is_in_no_doubt():
    assert clean_content("<p>" + "word " * 60 + "</p>", shapes.BASE).doubt == ""
    assert clean_content("<p>Short.</p>", shapes.BASE).doubt == ""
