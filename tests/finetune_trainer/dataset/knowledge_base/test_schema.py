"""The nine properties: what they are, and that a document goes there and back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from weaviate.classes.config import Tokenization

from finetune_contract.artifacts import Document
from finetune_trainer.dataset.knowledge_base.schema import (
    PROPERTIES,
    from_properties,
    schema_differences,
    to_properties,
)

POST = Document(
    source="",
    post_id="http://site/?p=1",
    post_title="Opening hours",
    post_excerpt="",
    post_content="## Summer\n\nFrom nine to five.",
    post_date="2025-03-04T05:06:07Z",
    post_author="Ada",
    post_categories=["Documentation", "Visiting"],
    post_tags=["hours"],
    post_url="http://site/hours/",
)


def test_the_nine_properties_have_their_types_tokens_and_indexes():
    """The columns: type, tokenization, filterable, searchable, ranges."""
    table = [
        (
            entry.name,
            entry.type.value,
            entry.tokenization.value if entry.tokenization else "-",
            entry.filterable,
            entry.searchable,
            entry.ranged,
        )
        for entry in PROPERTIES
    ]

    assert table == [
        ("postId", "text", "field", True, True, False),
        ("postTitle", "text", "word", True, True, False),
        ("postExcerpt", "text", "word", False, True, False),
        ("postContent", "text", "word", False, True, False),
        ("postDate", "date", "-", True, False, True),
        ("postAuthor", "text", "field", True, True, False),
        ("postCategories", "text[]", "field", True, False, False),
        ("postTags", "text[]", "field", True, False, False),
        ("postUrl", "text", "field", True, False, False),
    ]


def test_a_document_fills_each_property():
    assert [entry.name for entry in PROPERTIES] == list(to_properties(POST))


def test_a_document_comes_back_as_it_went():
    assert from_properties(to_properties(POST)) == POST


def test_a_date_comes_back_in_utc_whatever_zone_the_server_speaks():
    properties = to_properties(POST) | {"postDate": datetime.fromisoformat("2025-03-04T07:06:07+02:00")}

    assert from_properties(properties).post_date == POST.post_date


def test_empty_values_come_back_empty():
    properties = to_properties(POST) | {"postTags": None, "postExcerpt": None}

    assert from_properties(properties) == POST.model_copy(update={"post_tags": []})


def test_the_same_schema_has_no_differences():
    assert schema_differences(PROPERTIES) == []


def test_another_schema_is_told_property_by_property():
    title = replace(PROPERTIES[1], name="title")
    url = replace(PROPERTIES[8], tokenization=Tokenization.WORD)

    differences = schema_differences([PROPERTIES[0], title, *PROPERTIES[2:8], url])

    assert differences == [
        "postTitle is missing",
        "title is not one of the nine",
        "postUrl: tokenization is word instead of field",
    ]
