"""Passwords, tokens and front proxies of a WordPress: what is sent where, and what is said when it is refused."""

from __future__ import annotations

import base64
import logging
import traceback

import pytest
from werkzeug import Request, Response

from finetune_contract.run_spec import FrontProxySpec, SecretKeyRef, SecretRef
from finetune_trainer.errors import SourceRejected

PASSWORD = {"WORDPRESS_USERNAME_SITE": "reader", "WORDPRESS_PASSWORD_SITE": "abcd efgh ijkl"}
TOKEN = {"WORDPRESS_TOKEN_SITE": "tok-123"}
PROXY = {"FRONT_PROXY_USERNAME_SITE": "staging", "FRONT_PROXY_PASSWORD_SITE": "gate-secret"}
BY_PASSWORD = {"credentials_secret_ref": SecretRef(name="wp-reader")}
BY_TOKEN = {"token_secret_ref": SecretKeyRef(name="wp-token", key="jwt")}
BEHIND_PROXY = {
    "front_proxy": FrontProxySpec(credentials_secret_ref=SecretRef(name="gate"), header="Proxy-Authorization")
}
OPENS_THE_PROXY = "Basic " + base64.b64encode(b"staging:gate-secret").decode()


def guard(wordpress, header: str = "Proxy-Authorization") -> None:
    """Put a proxy with a password of its own in front of the site."""

    def check(request: Request) -> Response | None:
        if request.headers.get(header) == OPENS_THE_PROXY:
            return None
        return Response("<html>who?</html>", 401, headers={"WWW-Authenticate": 'Basic realm="staging"'})

    wordpress.before = check


@pytest.mark.parametrize(
    ("settings", "environment", "says"),
    [
        (
            BY_PASSWORD,
            PASSWORD | {"WORDPRESS_PASSWORD_SITE": "wrong-secret"},
            "credentialsSecretRef.*wp-reader",
        ),
        (BY_TOKEN, {"WORDPRESS_TOKEN_SITE": "wrong-secret"}, "tokenSecretRef.*wp-token"),
    ],
    ids=["password", "token"],
)
def test_what_is_refused_is_an_error_within_two_requests_that_names_the_secret_only(
    wordpress, caplog, settings, environment, says
):
    caplog.set_level(logging.DEBUG)
    wordpress.add(1, "Public", "<p>text</p>")

    reader = wordpress.reader(environment=environment, **settings)
    with pytest.raises(SourceRejected, match=rf"sources\[site\].wordpress.{says}") as caught:
        reader.check()

    assert len(wordpress.requests) <= 2
    shown = "".join(traceback.format_exception(caught.value)) + repr(vars(reader)) + caplog.text
    secret = base64.b64encode(b"reader:wrong-secret").decode()
    assert "wrong-secret" not in shown
    assert secret not in shown


@pytest.mark.parametrize("root_in_header", [True, False])
@pytest.mark.parametrize(
    ("settings", "environment"), [(BY_PASSWORD, PASSWORD), (BY_TOKEN, TOKEN)], ids=["password", "token"]
)
def test_what_is_right_is_taken(wordpress, settings, environment, root_in_header):
    wordpress.root_in_header = root_in_header

    wordpress.reader(environment=environment, **settings).check()

    assert wordpress.requests[-1].startswith("/wp-json/wp/v2/users/me")


def test_nothing_is_read_unproven_when_the_check_is_left_out(wordpress):
    with pytest.raises(SourceRejected):
        wordpress.read(environment=PASSWORD | {"WORDPRESS_PASSWORD_SITE": "x"}, **BY_PASSWORD)

    assert not [request for request in wordpress.requests if "/posts" in request]


def test_a_missing_token_names_its_key(wordpress):
    with pytest.raises(SourceRejected, match=r"tokenSecretRef: the Secret wp-token must have the key jwt"):
        wordpress.reader(**BY_TOKEN)


def test_a_site_that_hides_users_me_cannot_prove_the_credentials(wordpress):
    gone = Response('{"code":"rest_no_route"}', 404, mimetype="application/json")
    wordpress.before = lambda request: gone if "users/me" in request.path else None

    with pytest.raises(SourceRejected, match=r"hides /wp/v2/users/me.*wp-reader"):
        wordpress.reader(environment=PASSWORD, **BY_PASSWORD).check()


def test_an_api_that_is_closed_to_visitors_is_said(wordpress):
    closed = Response('{"code":"rest_login_required"}', 401, mimetype="application/json")
    wordpress.before = lambda request: closed if "wp-json" in request.path else None

    with pytest.raises(SourceRejected, match=r"closes its REST API to visitors \(401 rest_login_required\)"):
        wordpress.reader().check()


def test_a_proxy_and_wordpress_are_opened_by_headers_of_their_own(wordpress):
    wordpress.add(1, "Staged", "<p>text</p>")
    guard(wordpress)

    reader = wordpress.reader(environment=PASSWORD | PROXY, **BY_PASSWORD, **BEHIND_PROXY)
    reader.check()

    assert [document.title_html for document in reader.read(lambda *_, **__: None).documents] == ["Staged"]


def test_a_proxy_alone_is_opened_by_authorization(wordpress):
    wordpress.add(1, "Staged", "<p>text</p>")
    guard(wordpress, header="Authorization")
    proxy = FrontProxySpec(credentials_secret_ref=SecretRef(name="gate"))

    assert len(wordpress.read(environment=PROXY, front_proxy=proxy).documents) == 1


def test_a_refusal_of_the_proxy_is_told_from_one_of_wordpress(wordpress):
    guard(wordpress)
    environment = PASSWORD | PROXY | {"FRONT_PROXY_PASSWORD_SITE": "wrong-secret"}

    with pytest.raises(
        SourceRejected, match=r"frontProxy.credentialsSecretRef: a proxy.*Secret gate"
    ) as caught:
        wordpress.reader(environment=environment, **BY_PASSWORD, **BEHIND_PROXY).check()

    assert "wrong-secret" not in str(caught.value)
    assert len(wordpress.requests) == 1


def test_a_proxy_that_nobody_told_of_is_named(wordpress):
    guard(wordpress)

    with pytest.raises(SourceRejected, match=r"frontProxy: a proxy in front of.*besides Authorization"):
        wordpress.reader(environment=PASSWORD, **BY_PASSWORD).check()


def test_the_home_page_is_asked_without_the_password_of_wordpress(wordpress):
    sent: dict[str, str | None] = {}

    def remember(request: Request) -> None:
        sent[request.path] = request.headers.get("Authorization")

    wordpress.before = remember
    wordpress.reader(environment=PASSWORD, **BY_PASSWORD).check()

    assert sent["/"] is None
    assert sent["/wp-json/wp/v2/users/me"] is not None


def test_drafts_that_the_user_may_not_read_are_refused_at_their_place(wordpress):
    refused = Response('{"code":"rest_invalid_param"}', 400, mimetype="application/json")
    wordpress.before = lambda request: refused if "draft" in request.full_path else None

    with pytest.raises(SourceRejected, match=r"wordpress.statuses: .*sign in as an editor"):
        wordpress.read(environment=PASSWORD, statuses=["publish", "draft"], **BY_PASSWORD)


def test_private_posts_are_read_only_when_they_are_asked_for(wordpress):
    wordpress.add(1, "Open", "<p>text</p>")
    wordpress.add(2, "Inside", "<p>text</p>", status="private")

    default = wordpress.read(environment=PASSWORD, **BY_PASSWORD)
    chosen = wordpress.read(environment=PASSWORD, statuses=["publish", "private"], **BY_PASSWORD)

    assert [document.title_html for document in default.documents] == ["Open"]
    assert [document.title_html for document in chosen.documents] == ["Open", "Inside"]


def test_a_token_that_no_header_can_carry_is_refused_by_the_name_of_its_secret(wordpress):
    with pytest.raises(SourceRejected, match=r"tokenSecretRef: the token of the Secret wp-token") as caught:
        wordpress.reader(environment={"WORDPRESS_TOKEN_SITE": "tok-123\ntok-456"}, **BY_TOKEN)

    assert "tok-123" not in str(caught.value)
