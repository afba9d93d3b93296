"""Reading a collection that others keep, with the real client against a Weaviate in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_httpserver import HTTPServer

from finetune_contract.run_spec import SecretKeyRef, SourceSpec, WeaviateSource
from finetune_trainer.dataset.cleaning.html import plain_text
from finetune_trainer.dataset.sources import open_source
from finetune_trainer.dataset.sources.dates import UNDATED
from finetune_trainer.dataset.sources.harvest_memory import HarvestMemory
from finetune_trainer.dataset.sources.raw_document import Harvest
from finetune_trainer.dataset.sources.weaviate import WeaviateReader, is_html, to_document
from finetune_trainer.errors import SourceRejected, SourceUnavailable
from tests.finetune_trainer.dataset.knowledge_base.fake_weaviate import FakeWeaviate

NAMES = {
    "id": "key",
    "title": "headline",
    "excerpt": "",
    "content": "body",
    "date": "published",
    "author": "",
    "categories": "topics",
    "tags": "labels",
    "url": "link",
}
TYPES = {
    "key": "int",
    "headline": "text",
    "body": "text",
    "published": "date",
    "topics": "text",
    "labels": "text[]",
    "link": "text",
}


@pytest.fixture
def server(httpserver: HTTPServer) -> Iterator[FakeWeaviate]:
    fake = FakeWeaviate(httpserver)
    fake.add_collection("Article", **TYPES)
    yield fake
    fake.stop()


def add(server: FakeWeaviate, number: int, **changes: object) -> None:
    article: dict[str, object] = {
        "key": number,
        "headline": f"Article {number}",
        "body": f"## Part\n\nText of {number}.",
        "published": "2025-03-04T07:06:07+02:00",
        "topics": "Data, Data Structure",
        "labels": ["a", "b"],
        "link": f"https://other.example/{number}",
    }
    server.add("Article", f"00000000-0000-4000-8000-{number:012d}", article | changes)


def reader(server: FakeWeaviate, **names: str) -> WeaviateReader:
    spec = SourceSpec(
        name="articles",
        weaviate=WeaviateSource.model_validate(
            {
                "url": server.url,
                "grpcPort": server.grpc_port,
                "collection": "Article",
                "properties": NAMES | names,
            }
        ),
    )
    opened = open_source(spec, {}, credentials_required=True)
    assert isinstance(opened, WeaviateReader)
    return opened


def read(server: FakeWeaviate) -> Harvest:
    source = reader(server)
    source.check()
    return source.read(lambda *_, **__: None)


def test_every_object_becomes_a_document_by_the_names_of_the_spec(server):
    add(server, 1)

    (document,) = read(server).documents

    assert (document.source, document.post_id, document.title_html) == ("articles", "1", "Article 1")
    assert (document.date, document.url) == ("2025-03-04T05:06:07Z", "https://other.example/1")
    assert (document.categories, document.tags) == (("Data", "Data Structure"), ("a", "b"))
    assert (document.content_html, document.is_markdown) == ("## Part\n\nText of 1.", True)
    assert (document.excerpt_html, document.author) == ("", "")


def test_a_collection_of_many_pages_is_read_whole_in_a_stable_order(server):
    for number in range(250):
        add(server, number)

    first, second = read(server), read(server)

    assert len(first.documents) == 250
    assert list(first.documents) == list(second.documents)
    assert first.complete


def test_documents_wait_on_disk_in_the_folder_of_the_run_and_leave_nothing_there(server, tmp_path):
    add(server, 2)
    add(server, 1)
    source = reader(server)
    source.remember_in(HarvestMemory(tmp_path / "harvests"))

    documents = source.read(lambda *_, **__: None).documents

    assert [document.post_id for document in documents] == ["1", "2"]
    assert documents[1:] == (documents[1],)
    assert (tmp_path / "harvests").is_dir()
    assert list((tmp_path / "harvests").iterdir()) == []


def test_the_collection_is_never_written(server):
    add(server, 1)
    before = (dict(server.objects["Article"]), dict(server.schemas))

    read(server)

    assert (server.objects["Article"], server.schemas) == before
    assert server.batches == []


def test_an_empty_collection_gives_nothing(server):
    assert len(read(server).documents) == 0


def test_what_cannot_be_told_apart_or_opened_is_dropped_with_a_reason(server):
    add(server, 1)
    add(server, 2, key=1)
    add(server, 3, key=None)
    add(server, 4, link="")

    harvest = read(server)

    assert [entry.post_id for entry in harvest.documents] == ["1"]
    assert [entry.reason for entry in harvest.dropped] == [
        "another object has the same id",
        "it has no id",
        "it has no address",
    ]


def test_an_object_without_a_date_or_names_is_kept(server):
    add(server, 1, published=None, topics=None, labels=None)

    (document,) = read(server).documents

    assert (document.date, document.categories, document.tags) == (UNDATED, (), ())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<p>Text</p>", True),
        ("<h2>Part</h2>Text", True),
        ("Line<br>line", True),
        ("Plain words, 3 < 4 and 5 > 4.", False),
        ("## Part\n\nText", False),
        ("Write `<p>text</p>` for a paragraph.", False),
        ("```html\n<p>text</p>\n```\n\nThat was HTML.", False),
        ("````\n```html\n<p>text</p>\n```\n````\n\nThat was Markdown.", False),
        ("", False),
    ],
)
def test_html_is_told_from_markdown(content, expected):
    assert is_html(content) is expected


def test_a_title_beside_markdown_is_plain_text_and_comes_out_as_it_stands():
    title = "Using <b> & &amp; in HTML"

    document = to_document("articles", {"title": title, "content": "Text."})

    assert plain_text(document.title_html) == title


def test_a_title_beside_html_is_html():
    document = to_document("articles", {"title": "Salt &amp; pepper", "content": "<p>Text.</p>"})

    assert plain_text(document.title_html) == "Salt & pepper"
    assert not document.is_markdown


def test_a_property_that_is_not_there_is_named_with_those_that_are(server):
    with pytest.raises(
        SourceRejected,
        match=r"sources\[articles\].weaviate.properties.author: Article has no property writer; it has body, "
        r'headline, key, labels, link, published, topics: name one of them, or set it to "" if there is none',
    ):
        reader(server, author="writer").check()


def test_a_property_that_must_be_there_cannot_be_left_out(server):
    with pytest.raises(SourceRejected, match=r"properties.content: .*topics: name one of them$"):
        reader(server, content="text").check()


def test_a_date_that_is_no_date_is_refused(server):
    with pytest.raises(SourceRejected, match=r"properties.date: link is of type text, and date is needed"):
        reader(server, date="link").check()


def test_a_collection_that_is_not_there_is_named_with_those_that_are(server):
    server.schemas["Other"] = server.schemas.pop("Article") | {"class": "Other"}

    with pytest.raises(SourceRejected, match=r"weaviate.collection: .* has no Article; it has Other"):
        reader(server).check()


def test_a_server_that_is_down_is_unavailable(server, unused_port):
    spec = SourceSpec(
        name="articles", weaviate=WeaviateSource(url=f"http://127.0.0.1:{unused_port}", collection="Article")
    )

    with pytest.raises(SourceUnavailable, match=r"sources\[articles\].weaviate.url: .* does not answer"):
        open_source(spec, {}, credentials_required=True).check()


def test_a_secret_without_its_key_is_refused_in_a_job_and_not_on_a_laptop():
    spec = SourceSpec(
        name="old-articles",
        weaviate=WeaviateSource(
            url="http://weaviate:8080",
            collection="Article",
            api_key_secret_ref=SecretKeyRef(name="reader", key="api-key"),
        ),
    )

    with pytest.raises(SourceRejected, match=r"apiKeySecretRef: .*WEAVIATE_API_KEY_OLD_ARTICLES"):
        open_source(spec, {}, credentials_required=True)
    open_source(spec, {}, credentials_required=False)


def test_the_key_of_the_source_is_sent_and_not_told(httpserver: HTTPServer):
    httpserver.expect_request("/v1/meta", headers={"Authorization": "Bearer top-secret"}).respond_with_json(
        {"error": [{"message": "forbidden"}]}, status=403
    )
    spec = SourceSpec(
        name="articles",
        weaviate=WeaviateSource(url=httpserver.url_for("").rstrip("/"), collection="Article"),
    )
    source = open_source(spec, {"WEAVIATE_API_KEY_ARTICLES": "top-secret"}, credentials_required=True)

    with pytest.raises(SourceRejected, match="the right to read Article") as caught:
        source.check()

    assert "top-secret" not in str(caught.value) + repr(source.__dict__)
