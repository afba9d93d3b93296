"""What a second read of the same WordPress costs and finds: edits, deletions, renames, and a memory that is damaged.

Left out: a real WordPress (tests/together/test_wordpress_source.py).
"""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug import Response

from finetune_trainer.dataset.sources.harvest_memory import HarvestMemory
from finetune_trainer.dataset.sources.wordpress_bodies import MAX_AGE, Body, BodyFile
from finetune_trainer.errors import SourceUnavailable
from finetune_trainer.stores.local_folder import LocalFolder

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = "tok-123"


@pytest.fixture
def memory(tmp_path: Path) -> HarvestMemory:
    return HarvestMemory(tmp_path / "work", LocalFolder(tmp_path / "store"))


def kept_file(memory: HarvestMemory) -> Path:
    (path,) = (memory.store.root / "harvests").glob("*/*")
    return path


def fill(wordpress, number: int) -> None:
    for post in range(1, number + 1):
        wordpress.add(post, f"Post {post}", f"<p>text {post}</p>", categories=[2])


def test_an_unchanged_site_costs_few_requests_and_no_text(wordpress, memory):
    fill(wordpress, 500)

    first = wordpress.read(memory)
    texts_at_first = wordpress.bodies_fetched()
    kept = kept_file(memory).read_bytes()
    second = wordpress.read(memory)

    assert texts_at_first == 500
    assert wordpress.body_requests() == []
    assert len(wordpress.requests) <= 5 * 500 / 100
    assert list(second.documents) == list(first.documents)
    assert kept_file(memory).read_bytes() == kept


def test_only_the_text_that_changed_is_fetched_while_everything_else_follows(wordpress, memory):
    fill(wordpress, 500)
    before = {document.url: document for document in wordpress.read(memory).documents}
    wordpress.edit(7, "<p>new text</p>")
    wordpress.remove(8)  # deleted
    wordpress.post(9)["status"] = "trash"
    wordpress.post(10)["status"] = "draft"
    wordpress.categories[1]["name"] = "Grinding"

    found = wordpress.read(memory)

    assert wordpress.body_requests() == ["7"]
    assert found.complete
    after = {document.url: document for document in found.documents}
    assert before.keys() - after.keys() == {f"http://mill.example/{number}/" for number in (8, 9, 10)}
    assert after["http://mill.example/7/"].content_html == "<p>new text</p>"
    assert {document.categories for document in after.values()} == {("Blogs", "Grinding")}


def test_what_moves_without_a_new_date_is_seen_without_fetching_a_text(wordpress, memory):
    """WordPress leaves a post's date alone when its address, terms or author's name change."""
    fill(wordpress, 2)
    wordpress.read(memory)
    wordpress.post(1)["link"] = "http://mill.example/?p=1"
    wordpress.post(1)["categories"] = [3]
    wordpress.users[0]["name"] = "Grace"

    document = wordpress.read(memory).documents[0]

    assert (document.url, document.categories, document.author) == (
        "http://mill.example/?p=1",
        ("Archive",),
        "Grace",
    )
    assert wordpress.body_requests() == []


def test_a_deleted_post_is_forgotten(wordpress, memory):
    fill(wordpress, 3)
    wordpress.read(memory)
    wordpress.remove(2)

    wordpress.read(memory)

    assert b"text 2" not in gzip.decompress(kept_file(memory).read_bytes())
    assert b"text 3" in gzip.decompress(kept_file(memory).read_bytes())


def test_texts_are_read_anew_after_a_week_because_blocks_change_without_a_date(wordpress, memory):
    fill(wordpress, 3)
    wordpress.read(memory, now=NOW)
    wordpress.post(1)["content"] = {"rendered": "<p>a block changed</p>", "protected": False}

    soon = wordpress.read(memory, now=NOW + MAX_AGE - timedelta(seconds=1))
    assert soon.documents[0].content_html == "<p>text 1</p>"
    late = wordpress.read(memory, now=NOW + MAX_AGE)
    assert late.documents[0].content_html == "<p>a block changed</p>"
    assert wordpress.bodies_fetched() == 3


def test_a_text_that_was_read_in_the_second_of_its_edit_is_read_once_more(wordpress, memory):
    """A second edit in that second would leave the date as it is."""
    wordpress.add(1, "A", "<p>first</p>", modified_gmt="2026-01-01T00:00:00")
    wordpress.read(memory, now=NOW)
    wordpress.post(1)["content"] = {"rendered": "<p>second</p>", "protected": False}

    found = wordpress.read(memory, now=NOW + timedelta(hours=1))
    wordpress.read(memory, now=NOW + timedelta(hours=2))

    assert found.documents[0].content_html == "<p>second</p>"
    assert wordpress.body_requests() == []


def damage_a_byte(content: bytes) -> bytes:
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


@pytest.mark.parametrize(
    "damage",
    [
        damage_a_byte,
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"nonsense",
        lambda content: gzip.compress(b'{"format":"another"}\n'),
        lambda content: gzip.compress(gzip.decompress(content) + b'{"id":1}\n'),
    ],
    ids=["a changed byte", "cut off", "empty", "not gzip", "another format", "a row without fields"],
)
def test_a_damaged_memory_is_said_and_everything_is_read(wordpress, memory, damage, caplog):
    fill(wordpress, 30)
    first = wordpress.read(memory)
    path = kept_file(memory)
    path.write_bytes(damage(path.read_bytes()))

    second = wordpress.read(memory)

    assert wordpress.bodies_fetched() == 30
    assert list(second.documents) == list(first.documents)
    assert "read anew" in caplog.text
    wordpress.read(memory)
    assert wordpress.bodies_fetched() == 0


def test_a_read_that_breaks_off_is_gone_on_with(wordpress, memory):
    fill(wordpress, 250)
    down = Response("down", 503)
    wordpress.before = lambda request: down if "include=201" in request.full_path else None

    with pytest.raises(SourceUnavailable):
        wordpress.read(memory)
    wordpress.before = lambda request: None
    found = wordpress.read(memory)

    assert len(found.documents) == 250
    assert wordpress.bodies_fetched() == 50


def test_what_a_member_was_shown_is_not_for_a_visitors_run(wordpress, memory):
    """Plugins show members more of a post; its date of modification says nothing of it."""
    fill(wordpress, 3)
    member = {
        "environment": {"WORDPRESS_TOKEN_SITE": TOKEN},
        "token_secret_ref": {"name": "member", "key": "token"},
    }

    wordpress.read(memory, **member)
    as_visitor, texts_of_visitor = wordpress.read(memory), wordpress.bodies_fetched()
    wordpress.read(memory)

    assert len(as_visitor.documents) == texts_of_visitor == 3
    assert wordpress.bodies_fetched() == 0


def test_another_site_or_source_remembers_for_itself(wordpress, memory):
    fill(wordpress, 1)
    wordpress.read(memory)

    assert memory.recall("wordpress other http://elsewhere.example/") is None


def test_a_post_that_vanishes_before_its_text_is_read_has_a_reason_and_nothing_is_taken_for_deleted(
    wordpress,
):
    fill(wordpress, 3)

    def vanish(request):
        if "include=1" in request.full_path and "/posts" in request.path and len(wordpress.posts) == 3:
            wordpress.remove(2)

    wordpress.before = vanish

    found = wordpress.read()

    assert [document.title_html for document in found.documents] == ["Post 1", "Post 3"]
    assert [entry.reason for entry in found.dropped] == ["gone while the site was read"]
    assert not found.complete


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
bodies = st.builds(
    Body,
    id=st.integers(1, 20),
    modified=texts,
    read=st.datetimes(timezones=st.just(UTC)),
    date=texts,
    title=texts,
    excerpt=texts,
    content=texts,
    protected=st.booleans(),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(bodies))
def test_texts_on_disk_come_back_as_they_were_and_the_last_one_wins(tmp_path_factory, written):
    file = BodyFile(tmp_path_factory.getbasetemp())
    for body in written:
        file.add(body)

    last = {body.id: body for body in written}
    assert {number: file[number] for number in last} == last
    assert len(file) == len(last)
    assert file.numbers() == sorted(last)


def test_half_a_character_in_the_json_does_not_stop_the_run(wordpress, memory):
    wordpress.add(1, "A \ud83d", "<p>text</p>")

    assert wordpress.read(memory).documents[0].title_html == "A \ufffd"
