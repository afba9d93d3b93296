"""What every source promises, whatever it reads. What is special about one stands in its own test file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from finetune_contract.run_spec import (
    MarkdownSource,
    S3StoreSpec,
    SecretRef,
    SourceSpec,
    WeaviateSource,
    WebsiteSource,
)
from finetune_trainer.dataset.cleaned_documents import clean
from finetune_trainer.dataset.sources import SOURCES, Source, open_source
from finetune_trainer.dataset.sources.raw_document import Harvest
from finetune_trainer.dataset.sources.website import open_website
from finetune_trainer.errors import SourceUnavailable
from tests.finetune_trainer.dataset.knowledge_base.fake_weaviate import FakeWeaviate

KEYS = {"MARKDOWN_ACCESS_KEY_ID_DOCS": "key", "MARKDOWN_SECRET_ACCESS_KEY_DOCS": "secret"}
FIELDS = {"wordpress": "url", "website": "url", "markdown": "s3", "weaviate": "url"}
"""Field that the error of a source that is down names."""


@dataclass
class World:
    """A place with two documents and one that must be dropped, and the same place when it is down."""

    open: Callable[[], Source]
    open_while_down: Callable[[], Source]


def wordpress_world(request: pytest.FixtureRequest, port: int) -> World:
    site = request.getfixturevalue("wordpress")
    site.add(1, "Rye &amp; oats", "<p>Rye is old.</p>", date_gmt="2024-03-01T10:00:00")
    site.add(2, "Oats", "<p>Oats are young.</p>")
    site.add(3, "Secret", "", content={"rendered": "", "protected": True})

    def down() -> Source:
        site.before = lambda _: Response("", 503)
        return site.reader()  # type: ignore[no-any-return]

    return World(site.reader, down)


def website_world(request: pytest.FixtureRequest, port: int) -> World:
    site = request.getfixturevalue("website")
    site.page(
        "/", "<main><h1>Rye &amp; oats</h1><p>Rye is old.</p><a href='/a'>a</a><a href='/b'>b</a></main>"
    )
    site.page("/a", "<main><h1>Oats</h1><p>Oats are young.</p></main>")
    site.page("/b", "<main><p>x</p></main>", head="<meta name='robots' content='noindex'>")

    def opened(url: str) -> Source:
        website = WebsiteSource(url=url, allow_private_addresses=True)
        return open_website(SourceSpec(name="site", website=website), {}, True, sleep=lambda seconds: None)

    return World(lambda: opened(site.url), lambda: opened(f"http://127.0.0.1:{port}"))


def markdown_world(request: pytest.FixtureRequest, port: int) -> World:
    folder: Path = request.getfixturevalue("tmp_path")
    request.getfixturevalue("monkeypatch").setenv("AWS_MAX_ATTEMPTS", "1")
    (folder / "a.md").write_text("---\ntitle: Rye & oats\ndate: 2024-03-01\n---\nRye is old.")
    (folder / "b.md").write_text("# Oats\nOats are young.")
    (folder / "c.md").write_text("---\ndraft: true\n---\nx")
    bucket = S3StoreSpec(
        bucket="writing", endpoint=f"http://127.0.0.1:{port}", credentials_secret_ref=SecretRef(name="keys")
    )

    def opened(**where: object) -> Source:
        markdown = MarkdownSource.model_validate({"base_url": "https://docs.example/", **where})
        return open_source(SourceSpec(name="docs", markdown=markdown), KEYS, credentials_required=True)

    return World(lambda: opened(folder=str(folder)), lambda: opened(s3=bucket))


def weaviate_world(request: pytest.FixtureRequest, port: int) -> World:
    server = FakeWeaviate(request.getfixturevalue("httpserver"))
    request.addfinalizer(server.stop)
    names = ("postId", "postTitle", "postExcerpt", "postContent", "postAuthor", "postUrl")
    lists = {"postCategories": "text[]", "postTags": "text[]"}
    server.add_collection("Post", **dict.fromkeys(names, "text"), **lists, postDate="date")
    for number, (title, url) in enumerate(
        [("Rye & oats", "https://m/1"), ("Oats", "https://m/2"), ("Lost", "")]
    ):
        row = dict.fromkeys(names, "x") | {"postId": str(number), "postTitle": title, "postUrl": url}
        row |= {"postDate": "2024-03-01T00:00:00Z", "postCategories": [], "postTags": []}
        server.add("Post", f"00000000-0000-4000-8000-{number:012d}", row)

    def opened(url: str) -> Source:
        weaviate = WeaviateSource(url=url, grpc_port=server.grpc_port, collection="Post")
        return open_source(SourceSpec(name="posts", weaviate=weaviate), {}, credentials_required=True)

    return World(lambda: opened(server.url), lambda: opened(f"http://127.0.0.1:{port}"))


WORLDS = {
    "wordpress": wordpress_world,
    "website": website_world,
    "markdown": markdown_world,
    "weaviate": weaviate_world,
}


@pytest.fixture(params=WORLDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(kind: str, request: pytest.FixtureRequest, unused_port: int, httpserver: HTTPServer) -> World:
    return WORLDS[kind](request, unused_port)


def read(source: Source) -> Harvest:
    source.check()
    return source.read(lambda *_, **__: None)


def test_every_source_is_held_to_this():
    assert set(WORLDS) == set(SOURCES)


def test_nothing_is_lost_silently(world):
    found = read(world.open())

    assert len(list(found.documents)) == 2
    assert len(found.dropped) == 1
    assert found.dropped[0].reason
    assert found.complete


def test_identities_are_unique_and_the_same_place_gives_the_same_bytes(world):
    first, second = (list(read(world.open()).documents) for _ in range(2))

    assert len({document.post_id for document in first}) == len(first)
    assert all(document.post_id for document in first)
    assert first == second


def test_dates_are_utc_and_addresses_absolute(world):
    for document in read(world.open()).documents:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document.date)
        assert urlsplit(document.url).scheme in {"http", "https"}
        assert urlsplit(document.url).netloc


def test_titles_and_texts_come_out_of_cleaning_as_a_reader_sees_them(world):
    cleaned = [clean(document) for document in read(world.open()).documents]

    assert [document.post_title for document in cleaned] == ["Rye & oats", "Oats"]
    assert all(document.post_content for document in cleaned)


def test_a_source_that_is_down_is_found_out_before_anything_is_read(world, kind):
    source = world.open_while_down()

    with pytest.raises(
        SourceUnavailable, match=rf"^spec\.dataset\.sources\[\w+\]\.{kind}\.{FIELDS[kind]}: .*; "
    ):
        source.check()


def test_nothing_is_asked_before_the_check(world, httpserver):
    world.open()

    assert httpserver.log == []
