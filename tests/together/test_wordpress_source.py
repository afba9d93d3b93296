"""The WordPress source against a real WordPress: every form of permalinks, and what a second read costs and finds.

Posts that tests write lie under a root category of their own and go with it, so that nobody else sees them.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from devcluster.http_client import basic_authorization, request_json
from devcluster.lifecycle import found_wordpress
from devcluster.paths import Instance
from devcluster.wordpress import FORMS, show_in_form
from finetune_contract.run_spec import SecretRef, SourceSpec, WordPressSource
from finetune_trainer.dataset.sources.harvest_memory import HarvestMemory
from finetune_trainer.dataset.sources.raw_document import Harvest
from finetune_trainer.dataset.sources.wordpress import open_wordpress
from finetune_trainer.errors import SourceRejected
from finetune_trainer.stores.local_folder import LocalFolder
from tests.together.conftest import INSTANCE

pytestmark = pytest.mark.together

IN_CATEGORY = 30


class Requests(logging.Handler):
    """What the source asks for, by the log of the library that sends it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.paths: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(record.args or ()) >= 7:
            self.paths.append(str(record.args[4]))  # type: ignore[index]

    def for_texts(self) -> list[str]:
        return [path for path in self.paths if "include=" in path and "users" not in path]


@pytest.fixture
def asked() -> Iterator[Requests]:
    logger = logging.getLogger("urllib3.connectionpool")
    handler, level = Requests(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@dataclass(frozen=True)
class Editor:
    """Who writes posts into a category of this test."""

    url: str
    headers: dict[str, str]
    root: dict[str, Any]
    child: dict[str, Any]
    posts: list[dict[str, Any]]

    def send(self, method: str, route: str, **body: Any) -> Any:
        return request_json(method, f"{self.url}/wp-json/wp/v2/{route}", headers=self.headers, body=body)


@pytest.fixture
def editor(parts: dict[str, str]) -> Iterator[Editor]:
    headers = basic_authorization(parts["WORDPRESS_USER"], parts["WORDPRESS_APP_PASSWORD"])
    editor = Editor(parts["WORDPRESS_URL"], headers, {}, {}, [])
    name = f"Zz {uuid.uuid4().hex[:8]}"
    editor.root.update(editor.send("POST", "categories", name=name))
    editor.child.update(editor.send("POST", "categories", name=f"{name} child", parent=editor.root["id"]))
    for number in range(IN_CATEGORY):
        editor.posts.append(
            editor.send(
                "POST",
                "posts",
                title=f"{name} {number}",
                content=f"<p>Text {number}.</p>",
                status="publish",
                categories=[editor.child["id"]],
                date="2025-01-01T00:00:00",
            )
        )
    yield editor
    for route, row in [
        *(("posts", row) for row in editor.posts),
        ("categories", editor.child),
        ("categories", editor.root),
    ]:
        try:
            editor.send("DELETE", f"{route}/{row['id']}", force=True)
        except Exception as error:  # noqa: BLE001 - the test may have deleted it
            assert "410" in str(error) or "404" in str(error)  # noqa: PT017


def read(
    parts: dict[str, str],
    url: str = "",
    memory: HarvestMemory | None = None,
    password: str = "",
    **settings: Any,
) -> Harvest:
    source = SourceSpec(
        name="site",
        wordpress=WordPressSource(
            url=url or parts["WORDPRESS_URL"],
            credentials_secret_ref=SecretRef(name="wordpress-reader"),
            **settings,
        ),
    )
    environment = {
        "WORDPRESS_USERNAME_SITE": parts["WORDPRESS_USER"],
        "WORDPRESS_PASSWORD_SITE": password or parts["WORDPRESS_APP_PASSWORD"],
    }
    reader = open_wordpress(source, environment, True)
    if memory is not None:
        reader.remember_in(memory)
    reader.check()
    return reader.read(lambda *_, **__: None)


def test_pretty_plain_and_index_permalinks_give_the_same_documents(parts):
    site = found_wordpress(Instance(INSTANCE))

    pretty = read(parts)
    shown = {"": [replace(document, url="") for document in pretty.documents]}
    urls = {"": [document.url for document in pretty.documents]}
    for form in FORMS:
        harvest = read(parts, show_in_form(site, form))
        shown[form] = [replace(document, url="") for document in harvest.documents]
        urls[form] = [document.url for document in harvest.documents]

    assert len(pretty.documents) > 40
    assert shown["plain"] == shown[""]
    assert shown["index"] == shown[""]
    assert all("/?p" in url for url in urls["plain"])
    assert any("/index.php/" in url for url in urls["index"])
    assert not any("/?p" in url or "/index.php/" in url for url in urls[""])


@pytest.mark.parametrize("form", ["", *FORMS])
def test_a_wrong_password_ends_the_run_in_two_requests_in_every_form(parts, form, asked):
    url = show_in_form(found_wordpress(Instance(INSTANCE)), form) if form else parts["WORDPRESS_URL"]

    with pytest.raises(SourceRejected, match=r"credentialsSecretRef.*wordpress-reader.*401") as caught:
        read(parts, url, password="wrong-secret")

    assert "wrong-secret" not in str(caught.value)
    assert len(asked.paths) == 2


def test_only_what_changed_is_fetched_again(parts, editor, asked, tmp_path: Path):
    memory = HarvestMemory(tmp_path / "work", LocalFolder(tmp_path / "store"))
    root = editor.root["name"]

    def read_again() -> dict[str, Any]:
        asked.paths.clear()
        harvest = read(parts, memory=memory, post_types=["post"], root_categories=[root])
        assert harvest.complete
        return {document.post_id: document for document in harvest.documents}

    first = read_again()
    assert len(first) == IN_CATEGORY
    assert len(asked.for_texts()) == 1
    assert read_again() == first
    assert asked.for_texts() == []

    edited, deleted, trashed, unpublished = editor.posts[:4]
    editor.send("POST", f"posts/{edited['id']}", content="<p>New text.</p>")
    editor.send("DELETE", f"posts/{deleted['id']}", force=True)
    editor.send("DELETE", f"posts/{trashed['id']}")
    editor.send("POST", f"posts/{unpublished['id']}", status="draft")
    editor.send("POST", f"categories/{editor.child['id']}", name="Zz renamed")
    second = read_again()

    assert [path.partition("include=")[2].partition("&")[0] for path in asked.for_texts()] == [
        str(edited["id"])
    ]
    assert len(second) == IN_CATEGORY - 3
    assert {document.categories for document in second.values()} == {(root, "Zz renamed")}
    assert {
        post_id
        for post_id, document in second.items()
        if document.content_html != first[post_id].content_html
    } == {edited["guid"]["rendered"]}


def test_the_whole_site_unchanged_costs_ten_requests_and_no_text(parts, asked, tmp_path: Path):
    memory = HarvestMemory(tmp_path / "work", LocalFolder(tmp_path / "store"))

    first = read(parts, memory=memory)
    asked.paths.clear()
    second = read(parts, memory=memory)

    assert list(second.documents) == list(first.documents)
    assert asked.for_texts() == []
    assert len(asked.paths) <= 10, asked.paths


def test_a_draft_is_read_only_by_choice_and_a_protected_post_never(parts, editor):
    draft, protected = editor.posts[:2]
    editor.send("POST", f"posts/{draft['id']}", status="draft")
    editor.send("POST", f"posts/{protected['id']}", password="open")
    chosen: dict[str, Any] = {"post_types": ["post"], "root_categories": [editor.root["name"]]}

    default = read(parts, **chosen)
    with_drafts = read(parts, statuses=["publish", "draft"], **chosen)

    assert len(default.documents) == IN_CATEGORY - 2
    assert [entry.reason for entry in default.dropped if entry.reason.startswith("protected")] == [
        "protected by a password"
    ]
    assert len(with_drafts.documents) == IN_CATEGORY - 1
