"""The dataset stage with a real WordPress, Weaviate and S3 server, as a Job runs it, and what users get wrong.

Every test has a collection and a prefix of its own.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import weaviate
from weaviate.classes.config import DataType, Property
from weaviate.classes.init import Auth

from demo import untuned_model
from devcluster.progress import Progress
from finetune_contract.artifact_layout import GGUF_FILE, dataset_folder
from finetune_contract.artifacts import Document, Example
from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.stage_protocol import StageReport
from finetune_trainer.artifact_files import read_manifest
from finetune_trainer.dataset.build import ExactBaseModel, build_dataset
from finetune_trainer.dataset.knowledge_base.changes import SourceRead
from finetune_trainer.dataset.knowledge_base.schema import from_properties
from finetune_trainer.dataset.knowledge_base.weaviate import WeaviateKnowledgeBase
from finetune_trainer.errors import (
    DataRejected,
    KnowledgeBaseRejected,
    KnowledgeBaseUnavailable,
    SourceRejected,
    SourceUnavailable,
    StoreRejected,
)
from finetune_trainer.packaging.llama_cpp import served
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.s3 import S3Store
from tests.finetune_trainer.training.tiny_model import save_tiny_model

pytestmark = pytest.mark.together

POSTS = Path(__file__).parents[2] / "devcluster" / "sample_site" / "posts"
SITE_DOCUMENTS = sum("categories: [Archive" not in post.read_text() for post in POSTS.glob("*.html"))
"""Posts under Blogs and Documentation, and all pages."""


@pytest.fixture
def collection(parts: dict[str, str]) -> Iterator[str]:
    name = f"Dataset{uuid.uuid4().hex[:12]}"
    yield name
    with client(parts) as connected:
        connected.collections.delete(name)


def client(parts: dict[str, str]) -> weaviate.WeaviateClient:
    host, _, port = parts["WEAVIATE_GRPC"].partition(":")
    return weaviate.connect_to_custom(
        http_host=host,
        http_port=int(parts["WEAVIATE_URL"].rpartition(":")[2]),
        http_secure=False,
        grpc_host=host,
        grpc_port=int(port),
        grpc_secure=False,
        auth_credentials=Auth.api_key(parts["WEAVIATE_API_KEY"]),
        skip_init_checks=True,
    )


@pytest.fixture
def context(
    parts: dict[str, str], collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StageContext:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", parts["AWS_ACCESS_KEY_ID"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", parts["AWS_SECRET_ACCESS_KEY"])
    spec = FineTuneRunSpec.model_validate(
        {
            "baseModel": {"uri": "s3://models/base/none/"},
            "dataset": {
                "sources": [
                    {
                        "name": "site",
                        "wordpress": {
                            "url": parts["WORDPRESS_URL"],
                            "credentialsSecretRef": {"name": "wordpress-reader"},
                            "rootCategories": ["Blogs", "Documentation"],
                        },
                    }
                ],
                "knowledgeBase": {
                    "weaviate": {
                        "url": parts["WEAVIATE_URL"],
                        "grpcPort": int(parts["WEAVIATE_GRPC"].rpartition(":")[2]),
                        "collection": collection,
                        "apiKeySecretRef": {"name": "weaviate", "key": "api-key"},
                    }
                },
            },
            "store": {
                "s3": {
                    "bucket": parts["S3_BUCKET"],
                    "prefix": f"tests/{collection}",
                    "endpoint": parts["S3_ENDPOINT"],
                }
            },
        }
    )
    return StageContext(
        run_name="run",
        spec=spec,
        work_folder=tmp_path,
        store=S3Store.from_spec(spec.store.s3),
        progress=lambda *_, **__: None,
        environment={
            "WORDPRESS_USERNAME_SITE": parts["WORDPRESS_USER"],
            "WORDPRESS_PASSWORD_SITE": parts["WORDPRESS_APP_PASSWORD"],
            "WEAVIATE_API_KEY": parts["WEAVIATE_API_KEY"],
        },
    )


def changed(given: StageContext, path: str, value: Any) -> StageContext:
    """The context with one field of the spec changed."""
    wire: Any = given.spec.to_wire()
    *way, last = path.split(".")
    place = wire
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    spec = FineTuneRunSpec.model_validate(wire)
    return replace(given, spec=spec, store=S3Store.from_spec(spec.store.s3))


def build(given: StageContext) -> StageReport:
    return build_dataset(given, lambda _: ExactBaseModel("hf://owner/name@main", "base-digest"))


def knowledge_base(given: StageContext) -> WeaviateKnowledgeBase:
    assert given.spec.dataset.knowledge_base is not None
    assert given.spec.dataset.knowledge_base.weaviate is not None
    return WeaviateKnowledgeBase(given.spec.dataset.knowledge_base.weaviate, given.environment)


def objects(parts: dict[str, str], collection: str) -> list[Document]:
    with client(parts) as connected:
        if not connected.collections.exists(collection):
            return []
        return [
            from_properties(found.properties) for found in connected.collections.use(collection).iterator()
        ]


def documents_of(given: StageContext, report: StageReport) -> list[Document]:
    assert report.dataset is not None
    content = given.store.read(f"{dataset_folder(report.dataset.digest)}/documents.jsonl")
    assert content is not None
    return [Document.model_validate_json(line) for line in content.splitlines()]


def test_the_whole_site_becomes_a_dataset_and_a_second_run_writes_nothing(context, parts, collection, caplog):
    caplog.set_level("INFO", logger="finetune_trainer.dataset")

    first = build(context)
    second = build(context)

    assert first.dataset is not None
    assert first.dataset.documents == SITE_DOCUMENTS
    assert first.dataset.training_examples > 1000
    assert first == second
    assert [record.message for record in caplog.records if "synchronised" in record.message] == [
        f"Weaviate synchronised: collection={collection} written={SITE_DOCUMENTS} deleted=0",
        f"Weaviate synchronised: collection={collection} written=0 deleted=0",
    ]
    documents = documents_of(context, first)
    assert len(objects(parts, collection)) == len(documents) == SITE_DOCUMENTS
    roots = {document.post_categories[0] for document in documents if document.post_categories}
    assert roots == {"Blogs", "Documentation"}
    assert all(document.post_url.startswith("http") and document.post_author for document in documents)
    assert not [
        document
        for document in documents
        if "<p" in document.post_content or "[contact-form" in document.post_content
    ]


def test_the_snapshot_is_what_weaviate_holds_and_its_digest_is_in_the_manifest(context, parts, collection):
    report = build(context)

    assert report.dataset is not None
    folder = dataset_folder(report.dataset.digest)
    content = context.store.read(f"{folder}/documents.jsonl") or b""
    manifest = read_manifest(context.store, folder)
    kept = [Document.model_validate_json(line) for line in content.splitlines()]
    assert [entry.model_copy(update={"source": ""}) for entry in kept] == sorted(
        objects(parts, collection), key=lambda entry: (entry.post_date, entry.post_id)
    )
    assert manifest is not None
    assert manifest.facts["snapshotSha256"] == hashlib.sha256(content).hexdigest()


def test_a_run_with_a_sentence_model_has_vectors_and_the_same_dataset(context, parts, collection, tmp_path):
    without = build(context)
    with client(parts) as connected:
        connected.collections.delete(collection)
    model = save_tiny_model(tmp_path / "sentence-model").as_uri()

    report = build(changed(context, "dataset.knowledgeBase.weaviate.vectors", {"sentenceModel": model}))

    assert report.dataset is not None
    assert report.dataset == without.dataset
    with client(parts) as connected:
        posts = list(connected.collections.use(collection).iterator(include_vector=True))
    assert len(posts) == SITE_DOCUMENTS
    assert all({"title", "content"} <= set(entry.vector) for entry in posts)


def test_a_dataset_is_built_from_a_collection_of_others(context, parts, collection):
    first = build(context)
    wire: Any = context.spec.to_wire()
    weaviate_settings = wire["dataset"]["knowledgeBase"]["weaviate"]
    wire["dataset"]["sources"] = [{"name": "posts", "weaviate": {**weaviate_settings}}]
    wire["dataset"]["knowledgeBase"]["weaviate"]["collection"] = f"{collection}Copy"
    spec = FineTuneRunSpec.model_validate(wire)
    environment = {
        "WEAVIATE_API_KEY": parts["WEAVIATE_API_KEY"],
        "WEAVIATE_API_KEY_POSTS": parts["WEAVIATE_READER_API_KEY"],
    }

    try:
        report = build(replace(context, spec=spec, environment=environment))
    finally:
        with client(parts) as connected:
            connected.collections.delete(f"{collection}Copy")

    before = [entry.model_copy(update={"source": "posts"}) for entry in documents_of(context, first)]
    assert documents_of(context, report) == before


def test_every_answer_stands_in_the_document_that_it_names(context):
    report = build(context)

    assert report.dataset is not None
    texts = {
        document.post_url: " ".join(document.post_content.split())
        for document in documents_of(context, report)
    }
    rows = context.store.read(f"{dataset_folder(report.dataset.digest)}/train.jsonl") or b""
    examples = [Example.model_validate_json(line) for line in rows.splitlines()]
    for example in examples:
        for string in example.must_contain if example.kind.value == "grounded" else []:
            assert string in texts[example.document_url]


def test_what_a_real_language_model_writes_is_taught_only_where_the_document_says_it(context):
    """The demo's small base model writes little that holds; what counts is that nothing else gets through."""
    gguf = untuned_model.package(Progress()) / GGUF_FILE
    with served(gguf, context_tokens=8192) as model:
        generator = {"url": f"{model.address}/v1", "model": "smollm2", "maxRequests": 10}
        kinds = ["grounded", "refusal", "generated"]
        report = build(
            changed(changed(context, "dataset.generator", generator), "dataset.exampleKinds", kinds)
        )

    assert "the generator was asked 10 of at most 10 times" in report.message
    assert report.dataset is not None
    folder = dataset_folder(report.dataset.digest)
    steps = {
        (step["step"], step["unit"]): step
        for step in json.loads(context.store.read(f"{folder}/counts.json") or b"")
    }
    pairs = steps["generator", "pairs"]
    assert pairs["kept"] + sum(pairs["dropped"].values()) == pairs["seen"]
    texts = {post.post_url: " ".join(post.post_content.split()) for post in documents_of(context, report)}
    rows = (context.store.read(f"{folder}/train.jsonl") or b"").splitlines()
    written = [row for row in map(Example.model_validate_json, rows) if row.kind == "generated"]
    for row in written:
        assert all(said in texts[row.document_url] for said in row.must_contain)


def test_a_laptop_without_weaviate_gets_the_same_dataset(context):
    on_cluster = build(context)

    on_laptop = build(replace(context, on_cluster=False))

    assert on_laptop.dataset == on_cluster.dataset


def test_readers_find_posts_by_words_by_filter_and_by_date(context, parts, collection):
    build(context)

    with client(parts) as connected:
        posts = connected.collections.use(collection)
        found = posts.query.bm25(
            "winter ticket price", query_properties=["postTitle^2", "postContent"], limit=3
        )
        assert "Ticket prices" in [entry.properties["postTitle"] for entry in found.objects]
        wanted = objects(parts, collection)[0]
        exact = posts.query.fetch_objects(
            filters=weaviate.classes.query.Filter.by_property("postUrl").equal(wanted.post_url)
        )
        assert [entry.properties["postId"] for entry in exact.objects] == [wanted.post_id]
        late = posts.query.fetch_objects(
            filters=weaviate.classes.query.Filter.by_property("postDate").greater_or_equal(
                "2025-06-01T00:00:00Z"
            ),
            limit=200,
        )
        expected = {post.post_id for post in objects(parts, collection) if post.post_date >= "2025-06-01"}
        assert {entry.properties["postId"] for entry in late.objects} == expected


def test_a_lost_post_is_deleted_and_a_changed_one_written(context, parts, collection):
    build(context)
    base = knowledge_base(context)
    documents = base.snapshot(["site"])
    edited = documents[1].model_copy(update={"post_content": "new words"})

    changes = base.synchronise([edited, *documents[2:]], {"site": SourceRead(complete=True)})

    assert (len(changes.writes), len(changes.deletes)) == (1, 1)
    assert base.snapshot(["site"]) == sorted(
        [edited, *documents[2:]], key=lambda document: (document.post_date, document.post_id)
    )
    assert build(context).dataset is not None
    assert base.snapshot(["site"]) == documents


def test_a_great_loss_changes_nothing(context, parts, collection):
    build(context)
    base = knowledge_base(context)
    documents = base.snapshot(["site"])

    with pytest.raises(DataRejected, match="nothing was changed"):
        base.synchronise(documents[:20], {"site": SourceRead(complete=True)})

    assert base.snapshot(["site"]) == documents


def test_another_source_in_the_collection_is_left_alone(context, parts, collection):
    base = knowledge_base(context)
    base.check()
    other = Document(
        source="other", post_id="1", post_title="T", post_excerpt="", post_content="C",
        post_date="2025-01-01T00:00:00Z", post_author="", post_categories=[], post_tags=[], post_url="http://other/1",
    )  # fmt: skip
    base.synchronise([other], {"other": SourceRead(complete=True)})

    report = build(context)

    assert report.dataset is not None
    assert report.dataset.documents == SITE_DOCUMENTS
    assert base.snapshot(["other"]) == [other]


# What users get wrong: each is told with place, fact and remedy, and nothing stored is harmed.


def test_a_wrong_password_is_refused(context, parts, collection):
    environment = {**context.environment, "WORDPRESS_PASSWORD_SITE": "wrong-password-value"}

    with pytest.raises(SourceRejected) as caught:
        build(replace(context, environment=environment))

    assert "spec.dataset.sources[site].wordpress.credentialsSecretRef" in str(caught.value)
    assert "wordpress-reader" in str(caught.value)
    assert "wrong-password-value" not in str(caught.value)
    assert objects(parts, collection) == []


def test_an_address_that_is_no_wordpress_is_refused(context, parts):
    with pytest.raises(SourceRejected, match=r"sources\[site\].wordpress.url: .*no WordPress REST API"):
        build(changed(context, "dataset.sources.0.wordpress.url", parts["S3_ENDPOINT"]))


def test_an_address_where_nothing_listens_is_unavailable(context, parts, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    with pytest.raises(SourceUnavailable, match=r"sources\[site\].wordpress.url: .*:1/"):
        build(changed(context, "dataset.sources.0.wordpress.url", f"http://{parts['NODE_IP']}:1"))


def test_the_site_is_read_by_another_name_than_it_calls_itself(context, parts):
    """In a cluster, pods reach WordPress by a Service name; links stay as the site prints them."""
    resolve = requests.adapters.HTTPAdapter.get_connection_with_tls_context

    def to_the_node(adapter: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        request.url = request.url.replace("http://wordpress:8091", parts["WORDPRESS_URL"])
        return resolve(adapter, request, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.adapters.HTTPAdapter, "get_connection_with_tls_context", to_the_node)
        report = build(changed(context, "dataset.sources.0.wordpress.url", "http://wordpress:8091"))

    assert report.dataset is not None
    assert report.dataset.documents == SITE_DOCUMENTS
    assert all(
        document.post_url.startswith(parts["WORDPRESS_URL"]) for document in documents_of(context, report)
    )


def test_a_missing_bucket_is_refused_before_anything_is_written(context, parts, collection):
    with pytest.raises(StoreRejected, match=r"spec.store.s3: s3://no-such-bucket.*spec.store.s3.bucket"):
        build(changed(context, "store.s3.bucket", "no-such-bucket"))

    assert objects(parts, collection) == []


def test_a_wrong_store_key_is_refused(context, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-store-secret")
    given = replace(context, store=S3Store.from_spec(context.spec.store.s3))

    with pytest.raises(StoreRejected, match=r"spec\.store\.s3.*credentialsSecretRef") as caught:
        build(given)

    assert "wrong-store-secret" not in str(caught.value)


def test_weaviate_down_is_told_with_its_address(context, parts):
    address = f"http://{parts['NODE_IP']}:1"

    with pytest.raises(
        KnowledgeBaseUnavailable, match=f"knowledgeBase.weaviate.url: {address} does not answer"
    ):
        build(changed(context, "dataset.knowledgeBase.weaviate.url", address))


@pytest.mark.parametrize("port", [1, 8091])
def test_a_wrong_grpc_port_is_told(context, port):
    with pytest.raises(KnowledgeBaseUnavailable, match=rf"knowledgeBase.weaviate.grpcPort: .*:{port};"):
        build(changed(context, "dataset.knowledgeBase.weaviate.grpcPort", port))


def test_a_wrong_weaviate_key_is_refused(context):
    environment = {**context.environment, "WEAVIATE_API_KEY": "wrong-weaviate-key"}

    with pytest.raises(KnowledgeBaseRejected, match=r"apiKeySecretRef: .* refuses the key") as caught:
        build(replace(context, environment=environment))

    assert "wrong-weaviate-key" not in str(caught.value)


def test_a_key_that_may_only_read_is_refused(context, parts):
    environment = {**context.environment, "WEAVIATE_API_KEY": parts["WEAVIATE_READER_API_KEY"]}

    with pytest.raises(KnowledgeBaseRejected, match="the right to read and write"):
        build(replace(context, environment=environment))


def test_a_collection_with_another_schema_is_refused_and_kept(context, parts, collection):
    with client(parts) as connected:
        connected.collections.create(collection, properties=[Property(name="title", data_type=DataType.TEXT)])

    with pytest.raises(
        KnowledgeBaseRejected, match=r"another schema .*postId is missing.*title is not one of the nine"
    ):
        build(context)

    with client(parts) as connected:
        assert [entry.name for entry in connected.collections.use(collection).config.get().properties] == [
            "title"
        ]


def test_too_few_documents_are_refused_before_weaviate_is_written(context, parts, collection):
    with pytest.raises(
        DataRejected, match=rf"minDocuments: {SITE_DOCUMENTS} documents are left and 500 are needed"
    ):
        build(changed(context, "dataset.minDocuments", 500))

    assert objects(parts, collection) == []
    assert {key.partition("/")[0] for key in context.store.list("")} == {
        "harvests"
    }  # what was read, kept as it was


def test_an_unknown_root_category_is_refused(context):
    with pytest.raises(
        SourceRejected, match=r"rootCategories: .*no root category Recipes.*Archive, Blogs, Documentation"
    ):
        build(changed(context, "dataset.sources.0.wordpress.rootCategories", ["Recipes"]))
