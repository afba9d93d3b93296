"""Which text each vector stands for."""

from __future__ import annotations

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import VectorsSpec
from finetune_trainer.dataset.knowledge_base.vectors import SOURCE_PROPERTIES, module_settings, vector_texts

POST = Document(
    source="site",
    post_id="1",
    post_title="Opening hours",
    post_excerpt="When we are open.",
    post_content="From nine to five.",
    post_date="2025-03-04T05:06:07Z",
    post_author="Ada",
    post_categories=["Blogs", "Visiting"],
    post_tags=["hours", "visit"],
    post_url="http://site/hours/",
)


def test_the_facts_stand_before_the_content():
    assert vector_texts(POST) == {
        "title": "Opening hours",
        "excerpt": "When we are open.",
        "content": (
            "Title: Opening hours\nDate: 2025-03-04\nAuthor: Ada\nCategories: Blogs, Visiting\n"
            "Tags: hours, visit\nURL: http://site/hours/\n\nFrom nine to five."
        ),
    }


def test_facts_that_are_missing_leave_no_line_and_an_empty_excerpt_no_vector():
    bare = POST.model_copy(
        update={"post_excerpt": "", "post_author": "", "post_categories": [], "post_tags": []}
    )

    texts = vector_texts(bare)

    assert set(texts) == {"title", "content"}
    assert texts["content"].startswith("Title: Opening hours\nDate: 2025-03-04\nURL: ")


def test_a_module_is_handed_properties_in_the_order_in_which_it_reads_them():
    assert all(names == sorted(names) for names in SOURCE_PROPERTIES.values())
    assert list(SOURCE_PROPERTIES) == ["title", "excerpt", "content"]


def test_module_settings_are_handed_on_with_numbers_and_truth_values_as_such():
    spec = VectorsSpec(
        module="text2vec-openai",
        module_settings={
            "model": "ada-002",
            "dimensions": "256",
            "vectorizeClassName": "true",
            "deploymentId": "007",
        },
    )

    assert module_settings(spec) == {
        "model": "ada-002",
        "dimensions": 256,
        "vectorizeClassName": True,
        "deploymentId": "007",
    }
