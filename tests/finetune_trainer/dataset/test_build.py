"""The dataset stage on a laptop, against a site that speaks WordPress's API.

Left out: Weaviate, S3 and a real WordPress (tests/together/test_dataset.py).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from werkzeug import Response

from finetune_contract.artifact_layout import dataset_folder, evaluation_folder, model_folder
from finetune_contract.artifacts import ArtifactKind, Document, Example
from finetune_contract.prompt import REFUSAL
from finetune_contract.run_spec import CompareWithSpec, FineTuneRunSpec
from finetune_contract.stage_protocol import EvaluationFacts, StageReport
from finetune_trainer.artifact_files import publish_folder, read_manifest
from finetune_trainer.dataset import build as module
from finetune_trainer.dataset.build import ExactBaseModel, build_dataset
from finetune_trainer.dataset.knowledge_base.changes import Changes
from finetune_trainer.errors import (
    BaseModelRejected,
    DataRejected,
    Preempted,
    SourceRejected,
    StoreRejected,
)
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.local_folder import LocalFolder

TOPICS = [
    "loaf",
    "wheel",
    "otter",
    "gauge",
    "pond",
    "tern",
    "bridge",
    "oven",
    "sluice",
    "granary",
    "cellar",
    "tower",
]


DIGESTS = {
    "documents.jsonl": "79cf8ce4cf1d78ba",
    "train.jsonl": "605107cedca2578b",
    "evaluation.jsonl": "bcce7cf3b9ca2233",
}


def markdown(folder: Path) -> dict[str, object]:
    return {"name": "pages", "markdown": {"folder": str(folder), "baseUrl": "https://mill.example/"}}


@pytest.fixture
def site(wordpress):
    for number, topic in enumerate(TOPICS, start=1):
        wordpress.add(
            number,
            f"All about the {topic}",
            f"<p>Welcome.</p><h2>How much is the {topic}?</h2>"
            f"<p>The {topic} was bought for £{number}50 by the trust.</p>"
            f"<h2>History of the {topic}</h2><p>The old {topic} was built in 19{number + 10} by two brothers.</p>",
            categories=[2],
        )
    return wordpress


def context(site, folder: Path, **dataset: Any) -> StageContext:
    spec = {
        "baseModel": {"uri": "hf://owner/name@main"},
        "dataset": {
            "sources": dataset.pop("sources", None)
            or [{"name": "site", "wordpress": {"url": site.url, **dataset.pop("wordpress", {})}}],
            "minDocuments": 5,
            "minExamples": 20,
            **dataset,
        },
        "store": {"s3": {"bucket": "models"}},
    }
    return StageContext(
        run_name="run",
        spec=FineTuneRunSpec.model_validate(spec),
        work_folder=folder / "work",
        store=LocalFolder(folder / "store"),
        progress=lambda *_, **__: None,
        environment={},
        on_cluster=False,
    )


def build(given: StageContext) -> StageReport:
    return build_dataset(given, lambda _: ExactBaseModel("hf://owner/name@main", "base-digest"))


def stored(given: StageContext, report: StageReport) -> dict[str, bytes]:
    assert report.dataset is not None
    key = dataset_folder(report.dataset.digest)
    return {name.removeprefix(key): given.store.read(name) or b"" for name in given.store.list(key)}


def test_the_dataset_is_stored_whole_and_described(site, tmp_path):
    given = context(site, tmp_path)

    report = build(given)

    assert report.exit_code == 0
    assert report.dataset is not None
    assert report.dataset.documents == 12
    files = stored(given, report)
    assert set(files) == {
        "/train.jsonl", "/evaluation.jsonl", "/transfer.jsonl", "/documents.jsonl", "/dropped.jsonl",
        "/counts.json", "/dataset.html", "/manifest.json",
    }  # fmt: skip
    rows = [Example.model_validate_json(line) for line in files["/train.jsonl"].splitlines()]
    assert len(rows) == report.dataset.training_examples
    assert len(files["/evaluation.jsonl"].splitlines()) == report.dataset.evaluation_examples
    documents = [Document.model_validate_json(line) for line in files["/documents.jsonl"].splitlines()]
    assert {document.source for document in documents} == {"site"}
    manifest = read_manifest(given.store, dataset_folder(report.dataset.digest))
    assert manifest is not None
    assert manifest.facts["trainingExamples"] == len(rows)


def test_the_evaluation_asks_every_kind(site, tmp_path):
    given = context(site, tmp_path)

    files = stored(given, build(given))

    kinds = {json.loads(line)["kind"] for line in files["/evaluation.jsonl"].splitlines()}
    assert kinds == {"grounded", "closed_book", "url", "metadata", "follow_up", "refusal"}
    assert REFUSAL.encode() in files["/evaluation.jsonl"]


def test_the_same_input_gives_the_same_bytes(site, tmp_path):
    first, second = context(site, tmp_path / "a"), context(site, tmp_path / "b")

    assert stored(first, build(first)) == stored(second, build(second))


def test_markup_that_says_nothing_changes_no_byte(site, tmp_path):
    """Nonces, tracking ids, comments and blanks: what a site prints anew for each visitor."""
    plain = context(site, tmp_path / "a")
    before = build(plain)
    for number, post in enumerate(site.posts):
        html = post["content"]["rendered"].replace("<p>", f'<p data-nonce="{number * 7919}">\n  ')
        post["content"]["rendered"] = f"<!-- cached at {number} -->\n{html}\n<script>track({number})</script>"
    again = context(site, tmp_path / "b")

    assert stored(again, build(again)) == stored(plain, before)


def test_the_dataset_of_a_small_folder_is_this_one_on_every_python_and_machine(tmp_path):
    """Who changes cleaning, generator or split on purpose changes these digests with them."""
    folder = tmp_path / "pages"
    folder.mkdir()
    for number, topic in enumerate(TOPICS, start=1):
        (folder / f"{topic}.md").write_text(
            f"---\ntitle: All about the {topic}\ndate: 2025-01-{number:02d}\ntags: [mill, {topic}]\n---\n"
            f"## How much is the {topic}?\n\nThe {topic} was bought for £{number}50 by the trust.\n\n"
            f"## History\n\nThe old {topic} was built in 19{number + 10} by two brothers, so they say: “it *holds*”.\n",
            encoding="utf-8",
        )
    given = context(None, tmp_path, sources=[markdown(folder)])

    files = stored(given, build(given))

    found = {name: hashlib.sha256(files[f"/{name}"]).hexdigest()[:16] for name in DIGESTS}
    assert found == DIGESTS


def test_kinds_of_which_none_was_made_are_named_in_the_log_and_on_the_page(tmp_path, caplog):
    folder = tmp_path / "pages"
    folder.mkdir()
    for number in range(1, 13):
        (folder / f"{number}.md").write_text(
            f"---\ntitle: 水車小屋の案内 {number}\n---\n## 入場料 {number}\n\n大人の入場料は{number}50円です。\n",
            encoding="utf-8",
        )
    given = context(None, tmp_path, sources=[markdown(folder)], minExamples=1)

    files = stored(given, build(given))

    made = {json.loads(line)["kind"] for line in files["/train.jsonl"].splitlines()}
    assert "grounded" not in made
    assert "url" in made
    assert "no training example was made of these kinds: grounded, closed_book" in caplog.text
    assert (
        "No training example was made of these kinds: grounded, closed_book"
        in files["/dataset.html"].decode()
    )


def test_a_second_build_into_the_same_store_changes_nothing(site, tmp_path):
    given = context(site, tmp_path)
    first = build(given)
    before = stored(given, first)

    assert build(given) == first
    assert stored(given, first) == before


def test_a_changed_post_gives_another_dataset_and_run_key(site, tmp_path):
    given = context(site, tmp_path)
    first = build(given)
    site.posts[0]["content"] = {
        "rendered": "<h2>How much is the loaf?</h2><p>The loaf was a gift of the king.</p>"
    }
    site.posts[0]["modified_gmt"] = "2025-07-01T08:00:00"

    second = build(given)

    assert first.dataset is not None
    assert second.dataset is not None
    assert first.dataset.digest != second.dataset.digest
    assert first.dataset.run_key != second.dataset.run_key


def test_what_changed_since_another_dataset_is_counted_and_the_same_run_key_is_called_unchanged(
    site, tmp_path
):
    given = context(site, tmp_path)
    first = build(given)
    assert first.dataset is not None
    assert first.dataset.changed_documents is None
    compared = CompareWithSpec(run_key=first.dataset.run_key, dataset_digest=first.dataset.digest)
    given = replace(given, spec=given.spec.model_copy(update={"compare_with": compared}))

    same = build(given)
    site.posts[0]["content"] = {"rendered": "<h2>How much is the loaf?</h2><p>It was a gift of the king.</p>"}
    site.posts[0]["modified_gmt"] = "2025-07-01T08:00:00"
    gone = site.posts.pop()
    other = build(given)

    assert same.dataset is not None
    assert (same.reason, same.dataset.changed_documents) == ("Unchanged", 0)
    assert other.dataset is not None
    assert (other.reason, other.dataset.changed_documents) == ("Completed", 2), gone["id"]


def test_where_the_dataset_to_compare_with_is_gone_every_document_counts(site, tmp_path):
    given = context(site, tmp_path)
    compared = CompareWithSpec(dataset_digest="0" * 64)
    report = build(replace(given, spec=given.spec.model_copy(update={"compare_with": compared})))

    assert report.dataset is not None
    assert report.dataset.changed_documents == report.dataset.documents


def test_empty_posts_are_dropped_and_counted(site, tmp_path):
    site.add(40, "Empty", "<script>x()</script>", categories=[2])
    given = context(site, tmp_path)

    report = build(given)

    assert report.dataset is not None
    assert report.dataset.dropped == 1
    assert b"no text is left after cleaning" in stored(given, report)["/dropped.jsonl"]


def test_the_report_escapes_what_the_site_says(site, tmp_path):
    site.add(
        41,
        "Tags &lt;script&gt;alert(1)&lt;/script&gt;",
        "<h2>The tag</h2><p>A tag is written here.</p>",
        categories=[2],
    )
    given = context(site, tmp_path)

    page = stored(given, build(given))["/dataset.html"].decode()

    assert "<script>" not in page
    assert "http://" not in page.split("<body>")[0]


def test_too_few_documents_are_refused_and_nothing_is_stored(site, tmp_path):
    given = context(site, tmp_path, minDocuments=13)

    with pytest.raises(
        DataRejected, match=r"spec.dataset.minDocuments: 12 documents are left and 13 are needed"
    ):
        build(given)

    assert given.store.list("datasets") == []


def test_documents_without_headings_are_refused_with_the_remedy(wordpress, tmp_path):
    for number in range(6):
        wordpress.add(number + 1, f"P{number}", "<p>Hm.</p>")

    with pytest.raises(DataRejected, match="give the posts headings"):
        build(context(wordpress, tmp_path, exampleKinds=["grounded"]))


def test_wrong_credentials_stop_the_stage_before_reading(site, tmp_path):
    given = context(site, tmp_path, wordpress={"credentialsSecretRef": {"name": "wp"}})
    environment = {"WORDPRESS_USERNAME_SITE": "reader", "WORDPRESS_PASSWORD_SITE": "wrong"}

    with pytest.raises(SourceRejected, match="refuses the user name and password of the Secret wp"):
        build(StageContext(**{**given.__dict__, "environment": environment}))

    assert not [request for request in site.requests if "/posts" in request]


def test_a_base_model_that_is_refused_stops_the_stage_before_reading(site, tmp_path):
    def refuse(_: StageContext) -> str:
        raise BaseModelRejected("spec.baseModel.uri: there is no such model")

    with pytest.raises(BaseModelRejected):
        build_dataset(context(site, tmp_path), refuse)

    assert not [request for request in site.requests if "/posts" in request]


def test_a_store_that_refuses_stops_the_stage_before_anything_is_asked(site, tmp_path):
    given = context(site, tmp_path)
    (tmp_path / "store").write_text("a file, no folder")

    with pytest.raises(StoreRejected):
        build(given)

    assert site.requests == []


def test_a_site_that_breaks_off_leaves_the_store_as_it_was(site, tmp_path):
    login = Response("<html>", 200, mimetype="text/html")
    site.before = lambda request: login if "/pages" in request.path else None
    given = context(site, tmp_path)

    with pytest.raises(SourceRejected, match="is not JSON"):
        build(given)

    assert given.store.list("datasets") == []


def publish(given: StageContext, key: str, kind: ArtifactKind, files: dict[str, str], folder: Path) -> str:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return publish_folder(given.store, key, folder, kind, {}).sha256()


def test_a_finished_model_under_the_same_key_is_adopted(site, tmp_path):
    given = context(site, tmp_path)
    first = build(given)
    assert first.dataset is not None
    assert not first.dataset.adopted
    key = first.dataset.run_key
    verdict = EvaluationFacts(passed=True, gate="passed")
    sha256 = publish(given, model_folder(key), ArtifactKind.MODEL, {"model.gguf": "GGUF"}, tmp_path / "m")
    publish(
        given,
        evaluation_folder(key),
        ArtifactKind.EVALUATION,
        {"verdict.json": json.dumps(verdict.to_wire())},
        tmp_path / "e",
    )

    second = build(given)

    assert second.dataset is not None
    assert second.dataset.adopted
    assert second.reason == "Adopted"
    assert second.evaluation == verdict
    assert second.model is not None
    assert (second.model.manifest_sha256, second.model.size_bytes) == (sha256, 4)


def test_a_model_without_a_verdict_is_not_adopted(site, tmp_path):
    given = context(site, tmp_path)
    first = build(given)
    assert first.dataset is not None
    publish(
        given, model_folder(first.dataset.run_key), ArtifactKind.MODEL, {"model.gguf": "GGUF"}, tmp_path / "m"
    )

    second = build(given)

    assert second.model is None
    assert second == first


def test_at_every_step_kept_and_dropped_make_what_was_seen(site, tmp_path):
    site.add(40, "Empty", "<script>x()</script>", categories=[2])
    given = context(site, tmp_path)

    report = build(given)

    steps = json.loads(stored(given, report)["/counts.json"])
    assert [step["step"] for step in steps] == ["sources", "cleaning", "examples"]
    assert all(step["kept"] + sum(step["dropped"].values()) == step["seen"] for step in steps)
    assert steps[1] == {
        "step": "cleaning",
        "unit": "documents",
        "seen": 13,
        "kept": 12,
        "dropped": {"no text is left after cleaning": 1},
    }
    assert report.dataset is not None
    manifest = read_manifest(given.store, dataset_folder(report.dataset.digest))
    assert manifest is not None
    assert manifest.facts["counts"][1] == "cleaning: 13 documents seen, 12 kept, 1 dropped"


def test_the_row_that_is_missing_decides(site, tmp_path):
    report = build(context(site, tmp_path / "a"))
    assert report.dataset is not None
    rows = report.dataset.training_examples

    enough = build(context(site, tmp_path / "b", minExamples=rows))

    assert enough.dataset == report.dataset
    with pytest.raises(
        DataRejected, match=rf"minExamples: {rows} training examples .* {rows + 1} are needed"
    ):
        build(context(site, tmp_path / "c", minExamples=rows + 1))


def test_too_few_examples_are_refused_before_anything_is_stored(site, tmp_path):
    given = context(site, tmp_path, minExamples=5000)

    with pytest.raises(
        DataRejected, match=r"spec.dataset.minExamples: \d+ training examples .* 5000 are needed"
    ):
        build(given)

    assert given.store.list("datasets") == []


def test_what_people_corrected_is_taught_and_what_they_removed_is_not(site, tmp_path):
    given = context(site, tmp_path)
    rows = [
        Example.model_validate_json(line) for line in stored(given, build(given))["/train.jsonl"].splitlines()
    ]
    wrong, bad = [row for row in rows if row.kind == "grounded"][:2]
    sheet = f"id;verdict;corrected_answer\r\n{wrong.id};;It was £1.\r\n{bad.id};remove;\r\ngone;remove;\r\n"
    given.store.write("review.csv", b"\xef\xbb\xbf" + sheet.encode())
    reviewed = context(site, tmp_path, reviewFile="review.csv")

    files = stored(reviewed, build(reviewed))

    taught = {row.id: row for row in map(Example.model_validate_json, files["/train.jsonl"].splitlines())}
    assert taught[wrong.id].answer.startswith("It was £1. [")
    assert bad.id not in taught
    assert len(taught) == len(rows) - 1
    outcomes = [json.loads(line)["outcome"] for line in files["/reviewed.jsonl"].splitlines()]
    assert outcomes == ["corrected", "removed", "not applied: there is no such row any more"]
    assert json.loads(files["/counts.json"])[-1]["dropped"] == {"removed by a reviewer": 1}
    assert stored(reviewed, build(reviewed)) == files


def test_a_sheet_that_is_not_there_is_refused_before_anything_is_read(site, tmp_path):
    given = context(site, tmp_path, reviewFile="review.csv")

    with pytest.raises(DataRejected, match=r"spec.dataset.reviewFile: there is no .*review.csv"):
        build(given)

    assert site.requests == []


def test_a_language_model_writes_examples_and_is_not_asked_twice(site, tmp_path):
    asked: list[str] = []

    def write(request):
        if request.path == "/v1/models":
            return Response('{"data": []}', mimetype="application/json")
        if request.path != "/v1/chat/completions":
            return None
        section = json.loads(request.data)["messages"][-1]["content"]
        asked.append(section)
        topic, fact = section.split(" the ")[1].split("\n")[0], section.splitlines()[-1]
        pairs = [{"questions": [f"What did the trust pay for the {topic}?"], "answer": fact}]
        content = json.dumps({"pairs": pairs if "£" in fact else []})
        body = json.dumps({"choices": [{"message": {"content": content}}]})
        return Response(body, mimetype="application/json")

    site.before = write
    generator = {"url": f"{site.url}/v1", "model": "writer"}
    given = context(site, tmp_path, exampleKinds=["grounded", "refusal", "generated"], generator=generator)

    report = build(given)

    files = stored(given, report)
    passed = f"{len(TOPICS)} of {len(TOPICS)} pairs of the generator passed the checks (0% refused)"
    assert report.message.endswith(f"the generator was asked {len(asked)} of at most 2,000 times; {passed}")
    assert json.loads(files["/manifest.json"])["facts"]["generator"] == passed
    assert passed in files["/dataset.html"].decode()
    rows = [Example.model_validate_json(line) for line in files["/train.jsonl"].splitlines()]
    written = [row for row in rows if row.kind == "generated"]
    assert len(written) == len(TOPICS)
    assert all(row.answer.startswith("The ") and "by the trust. [" in row.answer for row in written)
    steps = {(step["step"], step["unit"]): step for step in json.loads(files["/counts.json"])}
    assert steps["generator", "pairs"]["kept"] == len(TOPICS)
    assert all(step["kept"] + sum(step["dropped"].values()) == step["seen"] for step in steps.values())
    questions = len(asked)
    assert stored(given, build(given)) == files
    assert len(asked) == questions


def test_a_document_that_was_hard_to_clean_is_kept_counted_and_named(site, tmp_path):
    form = "<form>" + "<label>Name</label><input>" * 40 + "</form>"
    site.add(40, "Form", form, categories=[2])
    given = context(site, tmp_path)

    files = stored(given, build(given))

    [noted] = [json.loads(line) for line in files["/noted.jsonl"].splitlines()]
    assert (noted["source"], noted["url"]) == ("site", "http://mill.example/40/")
    cleaning = json.loads(files["/counts.json"])[1]
    assert (cleaning["kept"], cleaning["noted"]) == (13, {noted["reason"]: 1})
    assert noted["url"] in files["/dataset.html"].decode()
    assert json.loads(files["/manifest.json"])["facts"]["counts"][1].endswith("0 dropped, 1 to be looked at")


def test_told_to_stop_it_ends_at_the_next_step_and_stores_nothing(site, tmp_path):
    steps: list[str] = []
    given = replace(
        context(site, tmp_path),
        progress=lambda *_, message="", **__: steps.append(message),
        stop_requested=lambda: "cleaning" in steps,
    )

    with pytest.raises(Preempted, match="told to stop"):
        build(given)

    assert steps[-1] == "cleaning"
    assert given.store.list("datasets") == []


@dataclass
class Shelf:
    """A knowledge base in memory."""

    others: tuple[Document, ...] = ()
    """What it holds besides, of the same sources."""
    held: list[Document] = field(default_factory=list)

    def check(self) -> None:
        """It is there."""

    def synchronise(self, documents, reads, done):
        self.held = list(documents)
        return Changes(tuple(documents), ())

    def snapshot(self, sources, folder):
        return sorted([*self.held, *self.others], key=lambda row: (row.post_date, row.post_id, row.source))


def test_what_the_documents_do_not_give_is_refused_before_the_knowledge_base_is_written(
    site, tmp_path, monkeypatch
):
    shelf = Shelf()
    monkeypatch.setattr(module, "_knowledge_base", lambda _: shelf)

    with pytest.raises(DataRejected, match="minExamples"):
        build(context(site, tmp_path, minExamples=5000))

    assert shelf.held == []


def test_a_faithful_knowledge_base_changes_nothing_of_the_dataset(site, tmp_path, monkeypatch):
    given, other = context(site, tmp_path / "a"), context(site, tmp_path / "b")
    without = build(given)
    monkeypatch.setattr(module, "_knowledge_base", lambda _: Shelf())

    report = build(other)

    assert report.dataset == without.dataset
    steps = {step["step"]: step for step in json.loads(stored(other, report)["/counts.json"])}
    assert list(steps) == ["sources", "cleaning", "knowledge base", "examples"]


def test_the_rows_are_made_of_what_the_knowledge_base_gives_back(site, tmp_path, monkeypatch):
    old = Document(
        source="site", post_id="old", post_title="All about the kiln", post_excerpt="",
        post_content="## How much is the kiln?\n\nThe kiln was bought for £77 by the trust.",
        post_date="2020-01-01T00:00:00Z", post_author="", post_categories=[], post_tags=[], post_url="http://mill/old",
    )  # fmt: skip
    monkeypatch.setattr(module, "_knowledge_base", lambda _: Shelf(others=(old,)))
    given = context(site, tmp_path)

    report = build(given)

    assert report.dataset is not None
    assert report.dataset.documents == len(TOPICS) + 1
    files = stored(given, report)
    assert json.loads(files["/documents.jsonl"].splitlines()[0])["postId"] == "old"
    assert "The kiln was bought for £77".encode() in files["/train.jsonl"]
