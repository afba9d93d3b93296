"""How a WordPress that is slow, busy or weak is read: waiting, trying again, smaller pages, few requests at once."""

from __future__ import annotations

import re
import threading
from urllib.parse import parse_qsl

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug import Request, Response

from finetune_contract import VERSION
from finetune_trainer.dataset.sources.wordpress_api import MAX_IN_FLIGHT, in_order
from finetune_trainer.dataset.sources.wordpress_http import (
    PassingFailure,
    Patience,
    Timing,
    retry_after_seconds,
)
from finetune_trainer.errors import SourceRejected, SourceUnavailable


def query(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.query_string.decode()))


def is_beyond_a_hundred(request: Request) -> bool:
    asked = query(request)
    return (int(asked.get("page", 1)) - 1) * int(asked.get("per_page", 1)) >= 100


def fill(wordpress, number: int) -> None:
    for post in range(1, number + 1):
        wordpress.add(post, f"Post {post}", "<p>text</p>")


def sizes(wordpress, what: str) -> list[str]:
    """per_page of the requests for posts that hold these words."""
    return [
        dict(parse_qsl(request.partition("?")[2]))["per_page"]
        for request in wordpress.requests
        if "/wp/v2/posts" in request and what in request
    ]


def test_717_posts_of_one_second_are_read_once_each_in_the_order_of_their_ids(wordpress):
    fill(wordpress, 717)

    found = wordpress.read(post_types=["post"])

    assert [document.title_html for document in found.documents] == [f"Post {n}" for n in range(1, 718)]
    assert len({document.post_id for document in found.documents}) == 717
    assert found.complete
    assert all("orderby=id&order=asc" in request for request in wordpress.requests if "/posts" in request)


def test_a_host_that_fails_on_big_pages_is_asked_for_smaller_ones_and_nothing_is_lost(wordpress):
    fill(wordpress, 110)
    broken = Response("memory exhausted", 500)
    wordpress.before = lambda request: (
        broken if "/posts" in request.path and int(query(request)["per_page"]) > 20 else None
    )

    found = wordpress.read(post_types=["post"])

    assert len(found.documents) == 110
    assert found.complete
    assert sizes(wordpress, "modified_gmt,guid") == ["100", "100", "50", *["20"] * 6]
    assert set(sizes(wordpress, "include=")) == {"20"}


def test_one_failure_does_not_make_pages_smaller(wordpress):
    fill(wordpress, 3)
    failures = [Response("busy", 502)]
    wordpress.before = lambda request: failures.pop() if failures and "/posts" in request.path else None

    wordpress.read(post_types=["post"])

    assert set(sizes(wordpress, "")) == {"100"}
    assert wordpress.waits == [0.5]


def test_a_failure_in_the_middle_of_the_sweep_loses_nothing(wordpress):
    fill(wordpress, 250)
    failures = [Response("busy", 502)]
    wordpress.before = lambda request: (
        failures.pop() if failures and query(request).get("page") == "2" else None
    )

    found = wordpress.read(post_types=["post"])

    assert len(found.documents) == 250
    assert found.complete


def test_a_page_that_never_comes_ends_the_run_after_five_tries(wordpress):
    fill(wordpress, 101)
    wordpress.before = lambda request: Response("down", 502) if is_beyond_a_hundred(request) else None

    with pytest.raises(SourceUnavailable, match=r"posts.*answers 502, 5 times"):
        wordpress.read(post_types=["post"])

    assert wordpress.waits == [0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Wed, 01 Jan 2025 10:00:09 GMT", "Date": "Wed, 01 Jan 2025 10:00:00 GMT"}, 9.0),
        ({"Retry-After": "Wed, 01 Jan 2025 09:00:00 GMT", "Date": "Wed, 01 Jan 2025 10:00:00 GMT"}, 0.0),
        ({"Retry-After": "Wed, 01 Jan 2025 10:00:09 GMT"}, None),
        ({"Retry-After": "99999"}, 120.0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_a_site_says_how_long_to_wait_in_seconds_or_by_its_own_clock(headers, seconds):
    assert retry_after_seconds(headers) == seconds


def test_a_busy_site_is_given_the_time_that_it_asks_for(wordpress):
    failures = [Response("slow down", 429, headers={"Retry-After": "7"})]
    wordpress.before = lambda request: failures.pop() if failures else None

    wordpress.reader().check()

    assert wordpress.waits == [7.0]


def test_a_php_warning_before_the_json_is_no_passing_failure(wordpress):
    noisy = Response("<b>Warning</b>: undefined []", 200, mimetype="application/json")
    wordpress.before = lambda request: noisy if "/posts" in request.path else None

    with pytest.raises(Exception, match="is not JSON"):
        wordpress.read()

    assert wordpress.waits == []


def test_a_byte_order_mark_before_every_answer_is_passed_over(wordpress):
    fill(wordpress, 1)
    answer = wordpress.answer

    def marked(request: Request) -> Response:
        response = answer(request)
        response.data = b"\xef\xbb\xbf" + response.data
        return response

    wordpress.server.clear()
    wordpress.server.expect_request(re.compile(".*")).respond_with_handler(marked)

    assert len(wordpress.read(post_types=["post"]).documents) == 1


def test_a_certificate_that_nobody_trusts_is_no_passing_failure(wordpress, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired")

    monkeypatch.setattr(requests.Session, "get", refuse)

    with pytest.raises(
        SourceRejected, match=r"wordpress.url: the certificate of .* is not trusted .*expired"
    ):
        wordpress.reader().check()

    assert wordpress.waits == []


def test_every_request_carries_the_projects_name(wordpress):
    agents: set[str] = set()
    wordpress.before = lambda request: agents.add(request.headers["User-Agent"])

    wordpress.read()

    assert agents == {f"finetune-operator/{VERSION}"}


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 1), st.integers(1, 4))
def test_waits_grow_and_never_pass_a_quarter_more(jitter, failures):
    waits: list[float] = []
    patience = Patience("spec", Timing(waits.append, lambda: jitter))

    for _ in range(failures):
        patience.wait(PassingFailure("it answers 502"), "http://a/")

    assert all(0.5 * 2**n <= wait <= 0.5 * 2**n * 1.25 for n, wait in enumerate(waits))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers()))
def test_results_come_in_the_order_of_the_items(items):
    assert list(in_order(lambda item: item + 1, items)) == [item + 1 for item in items]


def test_no_more_than_two_requests_are_in_flight():
    lock, now, most = threading.Lock(), [0], [0]
    both = threading.Barrier(MAX_IN_FLIGHT, timeout=30)

    def work(_: int) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        both.wait()
        with lock:
            now[0] -= 1

    list(in_order(work, range(6)))

    assert most == [MAX_IN_FLIGHT]
