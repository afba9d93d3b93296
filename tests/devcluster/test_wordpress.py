import json
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from devcluster import credentials, wordpress
from devcluster.errors import DevclusterError
from devcluster.paths import Instance
from devcluster.processes import Processes


@pytest.fixture
def site(tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> wordpress.WordPress:
    monkeypatch.setattr(wordpress, "PORT", httpserver.port)
    instance = Instance("unit", tmp_path)
    credentials.load(instance)
    credentials.keep_application_password(instance, "abcd efgh")
    return wordpress.WordPress(instance, Processes(instance), address=httpserver.host, listen=httpserver.host)


def serve(httpserver: HTTPServer, kind: str, slug: str, text: str) -> None:
    """One post of that kind; nothing of the other."""
    for other in ("posts", "pages"):
        found = [{"id": 7, "content": {"raw": text}}] if other == kind else []
        httpserver.expect_request(
            f"/wp-json/wp/v2/{other}", query_string={"slug": slug, "context": "edit"}
        ).respond_with_json(found)
    httpserver.expect_request(f"/wp-json/wp/v2/{kind}/7", method="POST").respond_with_json(
        {"link": f"http://site/{slug}/"}
    )


@pytest.mark.parametrize("kind", ["posts", "pages"])
def test_words_of_a_post_or_page_are_replaced_through_the_rest_api(
    site: wordpress.WordPress, httpserver: HTTPServer, kind: str
) -> None:
    serve(httpserver, kind, "prices", "<p>Tickets cost 9 pounds.</p>")

    link = wordpress.set_post(site, "prices", "9 pounds", "11 pounds")

    sent, _ = httpserver.log[-1]
    assert link == "http://site/prices/"
    assert json.loads(sent.data) == {"content": "<p>Tickets cost 11 pounds.</p>"}
    assert sent.authorization is not None
    assert (sent.authorization.username, sent.authorization.password) == ("trainer", "abcd efgh")


def test_words_that_are_not_there_are_an_error_and_nothing_is_written(
    site: wordpress.WordPress, httpserver: HTTPServer
) -> None:
    serve(httpserver, "posts", "prices", "<p>Tickets cost 11 pounds.</p>")

    with pytest.raises(DevclusterError, match=r"does not hold '9 pounds' \(it already holds the new words\)"):
        wordpress.set_post(site, "prices", "9 pounds", "11 pounds")

    assert [request.method for request, _ in httpserver.log] == ["GET"]


def test_a_slug_that_is_not_there_is_an_error(site: wordpress.WordPress, httpserver: HTTPServer) -> None:
    serve(httpserver, "posts", "prices", "")
    httpserver.expect_request("/wp-json/wp/v2/posts").respond_with_json([])
    httpserver.expect_request("/wp-json/wp/v2/pages").respond_with_json([])

    with pytest.raises(DevclusterError, match="no post or page with the slug 'nothing'"):
        wordpress.set_post(site, "nothing", "a", "b")


def test_an_answer_of_refusal_is_passed_on_without_the_password(
    site: wordpress.WordPress, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/wp-json/wp/v2/posts").respond_with_json(
        {"code": "rest_forbidden"}, status=401
    )

    with pytest.raises(DevclusterError, match=r"(?s)401.*rest_forbidden") as caught:
        wordpress.set_post(site, "prices", "a", "b")

    assert "abcd efgh" not in str(caught.value)


@pytest.mark.parametrize("form", wordpress.FORMS)
def test_another_form_of_permalinks_is_a_second_server_that_leaves_the_first_alone(
    site: wordpress.WordPress, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    started: dict[str, dict[str, str]] = {}
    monkeypatch.setattr(
        Processes,
        "start",
        lambda _, name, argv, *, env, user: started.update({name: {"argv": str(argv), **env}}),
    )
    monkeypatch.setitem(wordpress.FORMS, form, httpserver.port)
    httpserver.expect_request("/", query_string={"rest_route": "/"}).respond_with_json({})

    url = wordpress.show_in_form(site, form)

    assert url == httpserver.url_for("").rstrip("/")
    assert list(started) == [f"wordpress-{form}"]
    server = started[f"wordpress-{form}"]
    assert server["WORDPRESS_PERMALINKS"] == form
    assert server["WORDPRESS_HOME"] == url
    assert f"{httpserver.host}:{httpserver.port}" in server["argv"]
