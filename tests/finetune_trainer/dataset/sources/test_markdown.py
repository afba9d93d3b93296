"""The Markdown source: front matter, titles, dates, addresses, links; from a folder and from S3."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from finetune_contract.run_spec import MarkdownSource, S3StoreSpec, SecretRef, SourceSpec
from finetune_trainer.dataset.cleaned_documents import clean
from finetune_trainer.dataset.sources.markdown import open_markdown
from finetune_trainer.dataset.sources.markdown_file import MarkdownFile, UnreadableFile, parse_file
from finetune_trainer.dataset.sources.raw_document import Harvest
from finetune_trainer.errors import SourceRejected, SourceUnavailable

BASE = "https://docs.example/x"
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def quiet(*_: object, **__: object) -> None:
    return None


def spec(folder: Path, **settings: Any) -> SourceSpec:
    return SourceSpec(name="docs", markdown=MarkdownSource(folder=str(folder), base_url=BASE, **settings))


def harvest(source: SourceSpec, environment: dict[str, str] | None = None) -> Harvest:
    reader = open_markdown(source, environment or {}, True, now=lambda: NOON)
    reader.check()
    return reader.read(quiet)


def write(folder: Path, path: str, content: str | bytes) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def parsed(content: str, path: str = "a.md") -> MarkdownFile:
    return parse_file(path, content.encode(), BASE, "2025-06-01T12:00:00Z")


def test_a_file_becomes_a_document_with_the_facts_of_its_front_matter(tmp_path):
    write(
        tmp_path,
        "guide/a.md",
        "---\ntitle: 'Rye & <oats>'\ndate: 2024-03-01 10:00:00 +0200\nauthors: [{name: Ada}, Bo]\n"
        "categories: Guides, Mill\ntags: [b, a]\ndescription: About rye\n---\n# Rye & <oats>\n\nSome *text*.\n",
    )

    document = harvest(spec(tmp_path)).documents[0]
    cleaned = clean(document)

    assert (cleaned.post_title, cleaned.post_excerpt, cleaned.post_content) == (
        "Rye & <oats>",
        "About rye",
        "Some *text*.",
    )
    assert (cleaned.post_date, cleaned.post_author) == ("2024-03-01T08:00:00Z", "Ada, Bo")
    assert (cleaned.post_categories, cleaned.post_tags) == (["Guides", "Mill"], ["a", "b"])
    assert (cleaned.post_id, cleaned.post_url) == ("guide/a.md", "https://docs.example/x/guide/a/")


def test_toml_front_matter_is_read_too():
    file = parsed('+++\ntitle = "Rye"\ndate = 2024-03-01T10:00:00Z\ntags = ["a"]\n+++\ntext')

    assert (file.title, file.date, file.tags, file.body) == ("Rye", "2024-03-01T10:00:00Z", ("a",), "text")


@pytest.mark.parametrize(
    ("content", "title", "body"),
    [
        ("# Rye **bread** {#rye}\n\ntext", "Rye bread", "text"),
        ("Rye\n===\ntext", "Rye", "text"),
        ("intro\n\n# [Rye](x.md)\ntext", "Rye", "intro\n\n# [Rye](x.md)\ntext"),
        ("```\n# no heading\n```\ntext", "Rye bread", "```\n# no heading\n```\ntext"),
        ("---\ntitle: Rye\n---\n# Other\ntext", "Rye", "# Other\ntext"),
        ("---\n\nA rule at the top\n", "Rye bread", "---\n\nA rule at the top"),
    ],
)
def test_the_title_comes_from_front_matter_heading_or_name(content, title, body):
    file = parsed(content, "2024-01-31-rye-bread.md")

    assert (file.title, file.body) == (title, body)


@pytest.mark.parametrize(
    ("path", "content", "date"),
    [
        ("2024-01-31-rye.md", "text", "2024-01-31T00:00:00Z"),
        ("2024-01-31-rye.md", "---\ndate: 2024-02-01\n---\n", "2024-02-01T00:00:00Z"),
        ("2024-31-01-rye.md", "text", "1970-01-01T00:00:00Z"),
        ("rye.md", "---\npublished: true\n---\n", "1970-01-01T00:00:00Z"),
        ("rye.md", "---\ndate: 'Fri, 01 Mar 2024 10:00:00 +0100'\n---\n", "2024-03-01T09:00:00Z"),
    ],
)
def test_the_date_comes_from_front_matter_or_name_else_it_is_the_epoch(path, content, date):
    assert parsed(content, path).date == date


@pytest.mark.parametrize(
    ("path", "front", "url"),
    [
        ("guide/install.md", "", "https://docs.example/x/guide/install/"),
        ("README.md", "", "https://docs.example/x/"),
        ("guide/_index.md", "", "https://docs.example/x/guide/"),
        ("_posts/2024-01-31-rye.md", "", "https://docs.example/x/rye/"),
        ("a b/c.md", "", "https://docs.example/x/a%20b/c/"),
        ("guide/install.md", "slug: set-up", "https://docs.example/x/guide/set-up/"),
        ("guide/install.md", "url: /en/install.html", "https://docs.example/en/install.html"),
        ("guide/install.md", "permalink: https://mill.example/i", "https://mill.example/i"),
        ("guide/install.md", "permalink: /:year/:title/", "https://docs.example/x/guide/install/"),
    ],
)
def test_every_file_has_the_address_that_it_is_published_under(path, front, url):
    assert parsed(f"---\n{front}\n---\ntext", path).url == url


def test_relative_links_work_from_anywhere(tmp_path):
    write(
        tmp_path,
        "guide/a.md",
        'See [b](b.md#z "t"), [up](../README.md), [gone](gone.md), [part](#here), [root](/r), [web](https://w.example/x),\n'
        "![p](<../img/a b.png>) and `[c](b.md)`.\n\n```\n[c](b.md)\n```\n\n[ref]: b.md\n\n<img src='p.png'>\n",
    )
    write(tmp_path, "guide/b.md", "---\nurl: /bee\n---\ntext")
    write(tmp_path, "README.md", "text")

    body = next(one for one in harvest(spec(tmp_path)).documents if one.post_id == "guide/a.md").content_html

    assert body == (
        'See [b](https://docs.example/bee#z "t"), [up](https://docs.example/x/), [gone](https://docs.example/x/guide/gone.md),'
        " [part](https://docs.example/x/guide/a/#here), [root](https://docs.example/r), [web](https://w.example/x),\n"
        "![p](https://docs.example/x/img/a%20b.png) and `[c](b.md)`.\n\n```\n[c](b.md)\n```\n\n"
        '[ref]: https://docs.example/bee\n\n<img src="https://docs.example/x/guide/p.png">'
    )


def test_what_is_not_published_or_cannot_be_read_is_dropped_with_file_and_line(tmp_path):
    outside = tmp_path / "outside.md"
    outside.write_text("secret")
    folder = tmp_path / "docs"
    write(folder, "good.md", "text")
    write(folder, "draft.md", "---\ndraft: true\n---\ntext")
    write(folder, "hidden.md", "---\npublished: false\n---\ntext")
    write(folder, "later.md", "---\ndate: 2025-06-02\n---\ntext")
    write(folder, "yaml.md", "---\ntitle: Rye\ndescription: rye: oats\n---\ntext")
    write(folder, "open.md", "---\ntitle: Rye\ntext")
    write(folder, "list.md", "---\n- a\n---\ntext")
    write(folder, "date.md", "---\ndate: soon\n---\ntext")
    write(folder, "toml.md", "+++\ntitle = 'a'\ntags = [\n+++\ntext")
    write(folder, "latin.md", "one\nM\u00fchle".encode("latin-1"))
    write(folder, "notes.txt", "no Markdown")
    write(folder, ".git/x.md", "machinery")
    (folder / "link.md").symlink_to(outside)
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)

    found = harvest(spec(folder))

    assert [document.post_id for document in found.documents] == ["good.md"]
    assert {entry.post_id: entry.reason for entry in found.dropped} == {
        "draft.md": "is a draft",
        "hidden.md": "is unpublished",
        "later.md": "its date 2025-06-02T00:00:00Z is still to come",
        "yaml.md": "yaml.md, line 3: the front matter is no YAML (mapping values are not allowed here); "
        "put the value in quotes",
        "open.md": "open.md, line 1: the front matter is not closed; end it with ---",
        "list.md": "list.md, line 2: the front matter has no keys; write `title: ...`",
        "date.md": "date.md, line 2: date 'soon' is no date; write it as 2025-01-31",
        "toml.md": "toml.md, line 3: the front matter is no TOML; correct it",
        "latin.md": "latin.md, line 2: is not UTF-8; save it so",
        "link.md": "link.md: is a link that leads out of the folder",
    }


def test_of_files_with_one_address_the_first_is_kept_and_links_lead_there_from_everywhere(tmp_path):
    write(tmp_path, "guide/install.md", "Old.")
    write(tmp_path, "guide/install/index.md", "New.")
    write(tmp_path, "other.md", "---\npermalink: /guide/install/\ndraft: true\n---\nHidden.")
    write(tmp_path, "z.md", "[a](guide/install/index.md)")

    found = harvest(spec(tmp_path))

    assert [document.post_id for document in found.documents] == ["guide/install.md", "z.md"]
    assert found.documents[1].content_html == "[a](https://docs.example/x/guide/install/)"
    assert [(one.post_id, one.reason) for one in found.dropped if "address" in one.reason] == [
        ("guide/install/index.md", "has the address of guide/install.md; rename one of them")
    ]


def test_front_matter_makes_no_objects():
    with pytest.raises(UnreadableFile, match=r"a.md, line 2: the front matter is no YAML"):
        parsed("---\ntitle: !!python/object/apply:os.system ['true']\n---\n")


@settings(deadline=None)
@given(st.text(max_size=200), st.sampled_from(["", "---\n", "+++\n"]))
def test_no_file_makes_it_fail(content, start):
    try:
        said = parsed(start + content).date
    except UnreadableFile as error:
        said = str(error)

    assert said.startswith("a.md, line ") or said.endswith("Z")


def test_a_folder_that_is_not_there_is_refused_with_the_remedy_of_its_place(tmp_path):
    missing = spec(tmp_path / "missing")

    with pytest.raises(
        SourceRejected, match=r"sources\[docs\].markdown.folder: .*missing is no folder; in a Job this is"
    ):
        open_markdown(missing, {}, True).check()
    with pytest.raises(SourceRejected, match=r"is no folder; correct the path"):
        open_markdown(missing, {}, False).check()


def test_a_folder_without_markdown_is_refused(tmp_path):
    with pytest.raises(SourceRejected, match=r"markdown: .* holds no file that ends in .md or .markdown"):
        harvest(spec(tmp_path))


@pytest.fixture
def bucket() -> Iterator[Any]:
    with mock_aws():
        client = boto3.session.Session("key", "secret").client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="writing")
        yield client


def in_bucket(**settings: Any) -> SourceSpec:
    where = S3StoreSpec(**({"bucket": "writing", "prefix": "docs"} | settings))
    return SourceSpec(name="my-docs", markdown=MarkdownSource(s3=where, base_url=BASE))


KEYS = {"MARKDOWN_ACCESS_KEY_ID_MY_DOCS": "key", "MARKDOWN_SECRET_ACCESS_KEY_MY_DOCS": "secret"}


def test_a_prefix_gives_the_same_documents_as_a_folder(bucket, tmp_path):
    for path, content in {
        "a.md": "# Rye\n[b](g/b.md)",
        "g/c.markdown": "text",
        "g/b.md": "x",
        "p.png": "x",
    }.items():
        write(tmp_path, path, content)
        bucket.put_object(Bucket="writing", Key=f"docs/{path}", Body=content.encode())
    bucket.put_object(Bucket="writing", Key="docs-of-others/c.md", Body=b"no")
    source = in_bucket(credentials_secret_ref=SecretRef(name="writing"))

    found = harvest(source, KEYS)

    assert [document.post_id for document in found.documents] == ["a.md", "g/b.md", "g/c.markdown"]
    assert [d.content_html for d in found.documents] == [
        d.content_html for d in harvest(spec(tmp_path)).documents
    ]


def test_a_missing_bucket_and_an_empty_prefix_are_named_by_the_field_of_the_source(bucket):
    secret = SecretRef(name="writing")

    with pytest.raises(
        SourceRejected,
        match=r"does not exist; create it or correct spec.dataset.sources\[my-docs\].markdown.s3.bucket",
    ):
        harvest(in_bucket(bucket="nowhere", credentials_secret_ref=secret), KEYS)
    with pytest.raises(SourceRejected, match=r"markdown: s3://writing/docs holds no file"):
        harvest(in_bucket(credentials_secret_ref=secret), KEYS)


def test_a_named_secret_must_have_both_keys():
    source = in_bucket(credentials_secret_ref=SecretRef(name="writing"))

    with pytest.raises(
        SourceRejected, match=r"markdown.s3.credentialsSecretRef: the Secret writing must have the keys"
    ):
        open_markdown(source, {"MARKDOWN_ACCESS_KEY_ID_MY_DOCS": "key"}, True)


def test_an_s3_server_that_is_down_is_unavailable(monkeypatch, unused_port):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    source = in_bucket(
        endpoint=f"http://127.0.0.1:{unused_port}", credentials_secret_ref=SecretRef(name="writing")
    )

    with pytest.raises(
        SourceUnavailable, match=r"sources\[my-docs\].markdown.s3: s3://writing/docs/: no answer"
    ):
        harvest(source, KEYS)
