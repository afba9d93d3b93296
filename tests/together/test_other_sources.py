"""The website and the Markdown source against real servers: WordPress as any web site, files in S3."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import MarkdownSource, S3StoreSpec, SecretRef, SourceSpec, WebsiteSource
from finetune_contract.run_spec import WordPressSource as WordPressSpec
from finetune_trainer.dataset.cleaned_documents import clean
from finetune_trainer.dataset.sources import open_source
from finetune_trainer.errors import SourceRejected
from finetune_trainer.stores.s3 import S3Store

pytestmark = pytest.mark.together

FILES = {
    "guide/winding.md": "---\ntitle: Winding the tower clock\ndate: 2025-04-02\ntags: [clock]\n---\n"
    "Wind the clock on Mondays with the [long key](../keys.md).\n\n```sh\nclock --check\n```\n",
    "keys.md": "# The keys\n\nThe long key hangs behind the door of the loft.\n",
    "draft.md": "---\ndraft: true\n---\nNot yet.\n",
}


def documents(source: SourceSpec, environment: dict[str, str]) -> dict[str, Document]:
    """Cleaned documents by the path of their address."""
    reader = open_source(source, environment, credentials_required=True)
    reader.check()
    harvest = reader.read(lambda *_, **__: None)
    assert harvest.complete
    cleaned = [clean(raw) for raw in harvest.documents]
    return {urlsplit(document.post_url).path: document for document in cleaned}


def words(text: str) -> list[str]:
    return re.findall(r"\w+", re.sub(r"\]\([^)]*\)", "]", text))


def test_a_wordpress_read_as_a_web_site_gives_the_posts_that_its_api_gives(parts):
    keys = {
        "WORDPRESS_USERNAME_SITE": parts["WORDPRESS_USER"],
        "WORDPRESS_PASSWORD_SITE": parts["WORDPRESS_APP_PASSWORD"],
    }
    by_api = documents(
        SourceSpec(
            name="site",
            wordpress=WordPressSpec(
                url=parts["WORDPRESS_URL"], credentials_secret_ref=SecretRef(name="wordpress-reader")
            ),
        ),
        keys,
    )
    by_page = documents(
        SourceSpec(
            name="site",
            website=WebsiteSource(
                url=parts["WORDPRESS_URL"], requests_per_second=20, allow_private_addresses=True
            ),
        ),
        {},
    )

    assert set(by_api) <= set(by_page)
    for path, expected in by_api.items():
        found = by_page[path]
        assert found.post_title == expected.post_title, path
        missing = set(words(expected.post_content)) - set(words(found.post_content))
        assert len(missing) <= 0.002 * len(words(expected.post_content)), (path, missing)


def test_a_web_site_in_a_private_network_is_refused_unless_the_run_allows_it(parts):
    source = SourceSpec(name="site", website=WebsiteSource(url=parts["WORDPRESS_URL"]))

    with pytest.raises(SourceRejected, match="allowPrivateAddresses"):
        open_source(source, {}, credentials_required=True).check()


@pytest.fixture
def written(parts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[S3StoreSpec]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", parts["AWS_ACCESS_KEY_ID"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", parts["AWS_SECRET_ACCESS_KEY"])
    spec = S3StoreSpec(
        bucket=parts["S3_BUCKET"], prefix=f"tests/{uuid.uuid4().hex[:12]}", endpoint=parts["S3_ENDPOINT"]
    )
    store = S3Store.from_spec(spec)
    for name, text in FILES.items():
        store.write(name, text.encode())
    yield spec
    store.delete(FILES)


def markdown(**place: object) -> SourceSpec:
    settings = {"base_url": "https://mill.example/"} | place
    return SourceSpec(name="docs", markdown=MarkdownSource.model_validate(settings))


def test_markdown_in_s3_is_the_markdown_of_a_folder(parts, written, tmp_path: Path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    keyed = written.model_copy(update={"credentials_secret_ref": SecretRef(name="writing")})
    environment = {
        "MARKDOWN_ACCESS_KEY_ID_DOCS": parts["AWS_ACCESS_KEY_ID"],
        "MARKDOWN_SECRET_ACCESS_KEY_DOCS": parts["AWS_SECRET_ACCESS_KEY"],
    }

    in_s3 = documents(markdown(s3=keyed), environment)
    in_folder = documents(markdown(folder=str(tmp_path)), {})

    assert set(in_s3) == {"/guide/winding/", "/keys/"}
    assert in_s3 == in_folder
    winding = in_s3["/guide/winding/"]
    assert winding.post_title == "Winding the tower clock"
    assert "https://mill.example/keys/" in winding.post_content
    assert "clock --check" in winding.post_content


def test_a_wrong_key_for_markdown_in_s3_is_refused_and_not_shown(parts, written):
    keyed = written.model_copy(update={"credentials_secret_ref": SecretRef(name="writing")})
    environment = {
        "MARKDOWN_ACCESS_KEY_ID_DOCS": parts["AWS_ACCESS_KEY_ID"],
        "MARKDOWN_SECRET_ACCESS_KEY_DOCS": "wrong-writing-secret",
    }

    with pytest.raises(SourceRejected, match=r"sources\[docs\]\.markdown\.s3") as caught:
        documents(markdown(s3=keyed), environment)

    assert "wrong-writing-secret" not in str(caught.value)
