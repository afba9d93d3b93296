"""What the project relies on in WordPress, Weaviate and S3 as devcluster starts them."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from devcluster import base_model, s3, wordpress
from devcluster.access import Access
from devcluster.errors import DevclusterError
from devcluster.http_client import answers, basic_authorization, request_json
from devcluster.lifecycle import found_wordpress
from devcluster.paths import Instance
from devcluster.processes import Processes

pytestmark = pytest.mark.together

ROOT = Path(__file__).parents[2]
TEST = Instance("test")


def posts(access: Access, query: str, **headers: str) -> Any:
    return request_json("GET", f"{access.wordpress_url}/wp-json/wp/v2/{query}", headers=headers)


def test_the_site_has_its_posts_under_stable_ids_and_dates(running_parts: Access) -> None:
    oldest = posts(running_parts, "posts?per_page=1&orderby=date&order=asc&_fields=id,date_gmt,status")

    assert oldest[0]["status"] == "publish"
    assert oldest[0]["id"] in range(101, 160)
    assert oldest[0]["date_gmt"].startswith("2024-")
    assert len(posts(running_parts, "posts?per_page=100&_fields=id")) >= 40
    assert answers(running_parts.wordpress_url + "/wp-content/uploads/mill.png")


def test_links_inside_the_site_lead_to_posts(running_parts: Access) -> None:
    found = posts(running_parts, "posts?per_page=100&_fields=slug,link")

    assert {one["link"] for one in found} == {
        f"{running_parts.wordpress_url}/{one['slug']}/" for one in found
    }


def test_the_trainers_password_opens_what_the_public_does_not_see(running_parts: Access) -> None:
    login = basic_authorization(running_parts.wordpress_user, running_parts.wordpress_app_password)

    assert posts(running_parts, "users/me?context=edit", **login)["roles"] == ["editor"]
    with pytest.raises(DevclusterError, match="401"):
        posts(running_parts, "users/me?context=edit")


def test_bringing_it_up_again_keeps_what_an_editor_has_changed(running_parts: Access) -> None:
    site = found_wordpress(TEST)
    wordpress.set_post(site, "about", "The museum shows", "The museum still shows")
    try:
        up = [sys.executable, "-m", "devcluster", "up", "--name", TEST.name, "wordpress"]
        said = subprocess.run(up, cwd=ROOT, capture_output=True, text=True, check=True).stderr

        assert "already up" in said
        assert "still shows" in posts(running_parts, "pages?slug=about")[0]["content"]["rendered"]
    finally:
        wordpress.set_post(site, "about", "The museum still shows", "The museum shows")


@pytest.mark.parametrize(
    ("key", "reads", "writes"),
    [("weaviate_api_key", 200, 200), ("weaviate_reader_api_key", 200, 403), (None, 401, 401)],
)
def test_weaviate_lets_each_key_do_what_it_is_for(
    running_parts: Access, key: str | None, reads: int, writes: int
) -> None:
    headers = {"Authorization": f"Bearer {getattr(running_parts, key)}"} if key else {}
    schema = f"{running_parts.weaviate_url}/v1/schema"

    assert answers(schema, headers=headers, expect=reads)
    body = {"class": f"Probe{uuid.uuid4().hex[:8]}", "vectorizer": "none"}
    if writes == 200:
        request_json("POST", schema, headers=headers, body=body)
        delete = urllib.request.Request(f"{schema}/{body['class']}", headers=headers, method="DELETE")
        assert urllib.request.urlopen(delete, timeout=20).status == 200
    else:
        with pytest.raises(DevclusterError, match=f"answered with {writes}"):
            request_json("POST", schema, headers=headers, body=body)


@pytest.fixture
def store(running_parts: Access) -> Any:
    return s3.client(s3.S3(TEST, Processes(TEST)))


def test_s3_writes_only_once_where_that_is_asked_for(store: Any) -> None:
    key = "devcluster-probe/once"
    store.put_object(Bucket=s3.BUCKET, Key=key, Body=b"first")
    with pytest.raises(ClientError) as refused:
        store.put_object(Bucket=s3.BUCKET, Key=key, Body=b"second", IfNoneMatch="*")

    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert store.get_object(Bucket=s3.BUCKET, Key=key)["Body"].read() == b"first"
    store.delete_object(Bucket=s3.BUCKET, Key=key)


def test_s3_refuses_a_body_that_is_not_what_its_checksum_says(store: Any) -> None:
    with pytest.raises(ClientError, match=r"BadDigest|checksum"):
        store.put_object(
            Bucket=s3.BUCKET, Key="devcluster-probe/sum", Body=b"text", ChecksumSHA256="A" * 43 + "="
        )


def test_the_base_model_lies_in_the_bucket_as_a_hugging_face_folder(store: Any) -> None:
    listed = store.list_objects_v2(Bucket=s3.BUCKET, Prefix=base_model.PREFIX + "/")["Contents"]
    sizes = {one["Key"].removeprefix(base_model.PREFIX + "/"): one["Size"] for one in listed}

    assert {"config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"} < set(sizes)
    assert sizes["model.safetensors"] > 260_000_000
    config = store.get_object(Bucket=s3.BUCKET, Key=f"{base_model.PREFIX}/config.json")["Body"].read()
    assert json.loads(config)["dtype"] == "bfloat16"
    assert "quantization_config" not in json.loads(config)
