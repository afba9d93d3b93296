"""The WordPress source: finding the API, proving credentials, sweeping completely, joining names.

Left out: what a real WordPress does with these requests (tests/together/test_dataset.py).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug import Request, Response

from finetune_contract.run_spec import SOURCE_SETTINGS, SecretRef, SourceSpec, WordPressSource
from finetune_trainer.dataset.sources import SOURCES, open_source
from finetune_trainer.dataset.sources.raw_document import Harvest
from finetune_trainer.dataset.sources.wordpress import open_wordpress
from finetune_trainer.dataset.sources.wordpress_http import Timing
from finetune_trainer.dataset.sources.wordpress_root import ApiRoot
from finetune_trainer.errors import SourceRejected, SourceUnavailable

GOOD = {"WORDPRESS_USERNAME_SITE": "reader", "WORDPRESS_PASSWORD_SITE": "abcd efgh ijkl"}


def spec(url: str, **settings: Any) -> SourceSpec:
    return SourceSpec(name="site", wordpress=WordPressSource(url=url, **settings))


def quiet(*_: object, **__: object) -> None:
    return None


class Waits(list[float]):
    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def without_sleeping(waits: Waits | None = None) -> Timing:
    return Timing(sleep=waits if waits is not None else Waits(), jitter=lambda: 0.0)


def harvest(source: SourceSpec, waits: Waits | None = None) -> Harvest:
    reader = open_wordpress(source, {}, True, timing=without_sleeping(waits))
    reader.check()
    return reader.read(quiet)


def test_the_plain_form_of_the_api_takes_parameters_beside_the_route():
    assert (
        ApiRoot("http://a/?rest_route=/").url("wp/v2/posts", {"page": 2})
        == "http://a/?rest_route=/wp/v2/posts&page=2"
    )
    assert (
        ApiRoot("http://a/b/wp-json/").url("wp/v2/posts", {"page": 2})
        == "http://a/b/wp-json/wp/v2/posts?page=2"
    )


@settings(deadline=None)
@given(
    st.sampled_from(["http://a/wp-json/", "http://a/?rest_route=/", "http://a/b/index.php?rest_route=/"]),
    st.dictionaries(st.text("abc_", min_size=1), st.text(st.characters(exclude_categories=["Cs"]))),
)
def test_parameters_arrive_as_they_are_in_every_form(root, parameters):
    """Two question marks in one address are the classic mistake here."""
    parts = urlsplit(ApiRoot(root).url("wp/v2/posts", parameters))
    arrived = dict(parse_qsl(parts.query, keep_blank_values=True))

    route = arrived.pop("rest_route", parts.path.partition("wp-json")[2])
    assert (route, arrived) == ("/wp/v2/posts", parameters)


@pytest.mark.parametrize("pretty", [True, False])
@pytest.mark.parametrize("root_in_header", [True, False])
def test_the_api_is_found_and_gives_the_same_documents_in_every_form(wordpress, pretty, root_in_header):
    wordpress.add(5, "A", "<p>text</p>")
    wordpress.pretty, wordpress.root_in_header = pretty, root_in_header

    found = harvest(spec(wordpress.url))

    assert [document.url for document in found.documents] == ["http://mill.example/5/"]


def test_requests_go_to_the_address_in_the_spec_while_links_stay_as_the_site_prints_them(wordpress):
    wordpress.add(5, "A", "<p>text</p>")
    wordpress.pretty = False

    found = harvest(spec(wordpress.url))

    assert found.documents[0].url.startswith("http://mill.example/")
    assert found.documents[0].post_id == "http://mill.example/?p=5"


def test_a_site_without_the_api_is_refused_with_what_was_found(wordpress):
    wordpress.before = lambda request: Response("<html>shop</html>", 200, mimetype="text/html")

    with pytest.raises(
        SourceRejected, match=r"sources\[site\].wordpress.url.*no WordPress REST API.*text/html"
    ):
        harvest(spec(wordpress.url))


def test_a_site_that_has_moved_is_named(wordpress):
    def moved(request: Request) -> Response:
        return Response("", 301, headers={"Location": f"https://new.example{request.path}"})

    wordpress.before = moved

    with pytest.raises(SourceRejected, match=r"redirects to https://new.example/: write that address"):
        harvest(spec(wordpress.url))


def test_wrong_credentials_are_refused_in_two_requests_without_showing_them(wordpress):
    environment = GOOD | {"WORDPRESS_PASSWORD_SITE": "wrong-secret"}
    source = spec(wordpress.url, credentials_secret_ref=SecretRef(name="wp-reader"))

    with pytest.raises(SourceRejected) as caught:
        open_wordpress(source, environment, True, timing=without_sleeping()).check()

    assert "spec.dataset.sources[site].wordpress.credentialsSecretRef" in str(caught.value)
    assert "wp-reader" in str(caught.value)
    assert "wrong-secret" not in str(caught.value)
    assert len(wordpress.requests) == 2


def test_right_credentials_are_accepted(wordpress):
    source = spec(wordpress.url, credentials_secret_ref=SecretRef(name="wp-reader"))

    open_wordpress(source, GOOD, True, timing=without_sleeping()).check()

    assert wordpress.requests[-1].startswith("/wp-json/wp/v2/users/me")


def test_a_secret_without_its_keys_is_refused_before_any_request(wordpress):
    source = spec(wordpress.url, credentials_secret_ref=SecretRef(name="wp-reader"))

    with pytest.raises(SourceRejected, match="keys username and password"):
        open_source(source, {"WORDPRESS_USERNAME_SITE": "reader"}, credentials_required=True)

    assert wordpress.requests == []


def test_a_laptop_without_the_secret_reads_what_everybody_may_read(wordpress):
    wordpress.add(5, "A", "<p>text</p>")
    source = open_source(
        spec(wordpress.url, credentials_secret_ref=SecretRef(name="wp-reader")),
        {},
        credentials_required=False,
    )

    source.check()

    assert len(source.read(quiet).documents) == 1


def test_every_kind_of_source_in_the_contract_can_be_opened():
    assert set(SOURCES) == set(SourceSpec.model_fields) - set(SOURCE_SETTINGS)


@pytest.mark.parametrize(("number", "pages"), [(0, 1), (1, 1), (100, 1), (200, 2), (250, 3)])
def test_a_sweep_reads_every_row_and_no_page_too_many(wordpress, number, pages):
    for post in range(1, number + 1):
        wordpress.add(post, f"Post {post}", "<p>text</p>", date_gmt="2025-01-01T00:00:00")

    found = harvest(spec(wordpress.url, post_types=["post"]))

    assert len({document.post_id for document in found.documents}) == number
    assert found.complete
    lists = [
        request for request in wordpress.requests if "/wp/v2/posts" in request and "include=" not in request
    ]
    assert len(lists) == pages
    assert len(wordpress.body_requests()) == -(-number // 100)


def test_hidden_rows_do_not_end_the_sweep_and_make_it_incomplete(wordpress):
    for post in range(1, 151):
        wordpress.add(post, f"Post {post}", "<p>text</p>")
    wordpress.hidden = {3, 4}

    found = harvest(spec(wordpress.url))

    assert len(found.documents) == 148
    assert not found.complete


def test_a_post_that_vanishes_during_the_sweep_makes_it_start_again(wordpress):
    for post in range(1, 102):
        wordpress.add(post, f"Post {post}", "<p>text</p>")
    state = {"gone": False}

    def remove_one(request: Request) -> None:
        if request.args.get("page") == "2" and not state["gone"]:
            state["gone"] = True
            wordpress.posts.pop()

    wordpress.before = remove_one

    found = harvest(spec(wordpress.url, post_types=["post"]))

    assert len(found.documents) == 100
    assert found.complete


def test_names_are_joined_and_entities_decoded(wordpress):
    wordpress.add(7, "Rye &amp; oats", "<p>text</p>", categories=[2], tags=[9, 8])

    document = harvest(spec(wordpress.url)).documents[0]

    assert document.categories == ("Blogs", "Milling & more")
    assert document.tags == ("oats", "rye")
    assert document.author == "Ada & Co"
    assert document.date == "2025-01-08T08:00:00Z"


@pytest.mark.parametrize("written", [None, "", "-0001-11-30T00:00:00"])
def test_a_post_without_a_date_has_the_epoch(wordpress, written):
    wordpress.add(7, "A", "<p>text</p>", date_gmt=written)

    assert harvest(spec(wordpress.url)).documents[0].date == "1970-01-01T00:00:00Z"


def test_hidden_authors_are_no_error(wordpress):
    wordpress.add(7, "A", "<p>text</p>")
    closed = Response('{"code":"rest_user_cannot_view"}', 401, mimetype="application/json")
    wordpress.before = lambda request: closed if "/users" in request.path else None

    assert harvest(spec(wordpress.url)).documents[0].author == ""


def test_only_posts_under_the_root_categories_and_all_pages_are_kept(wordpress):
    wordpress.add(1, "In", "<p>text</p>", categories=[2])
    wordpress.add(2, "Out", "<p>text</p>", categories=[3])
    wordpress.add(3, "Page", "<p>text</p>", type="page")
    del wordpress.posts[-1]["categories"]

    found = harvest(spec(wordpress.url, root_categories=["blogs"]))

    assert [document.title_html for document in found.documents] == ["In", "Page"]
    assert [entry.reason for entry in found.dropped] == ["in none of the root categories of the spec"]


def test_an_unknown_root_category_lists_those_that_exist(wordpress):
    with pytest.raises(
        SourceRejected, match=r"rootCategories: the site has no root category Recipes.*Archive, Blogs"
    ):
        harvest(spec(wordpress.url, root_categories=["Recipes"]))


def test_an_unknown_post_type_lists_those_that_exist(wordpress):
    with pytest.raises(SourceRejected, match=r"postTypes: the site has no product; it has page, post"):
        harvest(spec(wordpress.url, post_types=["product"]))


def test_protected_posts_are_dropped_with_a_reason(wordpress):
    wordpress.add(1, "Secret", "", content={"rendered": "", "protected": True})

    found = harvest(spec(wordpress.url))

    assert [entry.reason for entry in found.dropped] == ["protected by a password"]


@pytest.mark.parametrize(
    ("failure", "wait"),
    [
        (Response("slow down", 429, headers={"Retry-After": "2"}), 2.0),
        (Response("broken", 502), 0.5),
        (Response('[{"id": 1', 200, mimetype="application/json"), 0.5),
    ],
)
def test_a_passing_failure_is_waited_out(wordpress, failure, wait):
    wordpress.add(1, "A", "<p>text</p>")
    failures = [failure]
    wordpress.before = lambda request: failures.pop() if failures and "/posts" in request.path else None
    waits = Waits()

    found = harvest(spec(wordpress.url), waits)

    assert len(found.documents) == 1
    assert waits == [wait]


def test_a_site_that_stays_down_is_unavailable_and_named(wordpress):
    wordpress.before = lambda request: Response("down", 503)

    with pytest.raises(SourceUnavailable, match=r"sources\[site\].wordpress.url.*answers 503, 5 times"):
        harvest(spec(wordpress.url))


def test_an_address_where_nothing_listens_is_unavailable(unused_port):
    waits = Waits()

    with pytest.raises(SourceUnavailable, match=rf"127.0.0.1:{unused_port}.*no answer.*Connection refused"):
        harvest(spec(f"http://127.0.0.1:{unused_port}"), waits)

    assert waits == [0.5, 1.0, 2.0, 4.0]


def test_an_answer_that_is_not_json_is_named(wordpress):
    login = Response("<html>sign in</html>", 200, mimetype="text/html")
    wordpress.before = lambda request: login if "/posts" in request.path else None

    with pytest.raises(SourceRejected, match=r"/wp/v2/posts.*is not JSON \(200, text/html"):
        harvest(spec(wordpress.url))


def test_rows_that_a_plugin_has_changed_are_named(wordpress):
    odd = {"X-WP-Total": "1", "X-WP-TotalPages": "1"}
    changed = Response('[{"ID": 1}]', 200, mimetype="application/json", headers=odd)
    wordpress.before = lambda request: changed if "/posts" in request.path else None

    with pytest.raises(SourceRejected, match=r"/wp/v2/posts.*is no list of objects with ids; is a plugin"):
        harvest(spec(wordpress.url))


def test_a_missing_total_is_named(wordpress):
    bare = Response("[]", 200, mimetype="application/json")
    wordpress.before = lambda request: bare if "/posts" in request.path else None

    with pytest.raises(SourceRejected, match="without X-WP-Total"):
        harvest(spec(wordpress.url))


def test_a_closed_content_route_is_named(wordpress):
    closed = Response('{"code":"rest_forbidden"}', 403, mimetype="application/json")
    wordpress.before = lambda request: closed if "/posts" in request.path else None

    with pytest.raises(SourceRejected, match=r"refuses to list its content \(403 rest_forbidden\)"):
        harvest(spec(wordpress.url))
