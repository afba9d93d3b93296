"""The website source: what is read in which order, what is left out, and what it does when a site is not well."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
import requests
from werkzeug import Request, Response

from finetune_contract.run_spec import SourceSpec, WebsiteSource
from finetune_trainer.dataset.sources.raw_document import Harvest
from finetune_trainer.dataset.sources.website import open_website
from finetune_trainer.errors import InvalidRun, SourceRejected, SourceUnavailable


class Waits(list[float]):
    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def quiet(*_: object, **__: object) -> None:
    return None


def spec(url: str, **settings: Any) -> SourceSpec:
    settings = {"requests_per_second": 20, "allow_private_addresses": True} | settings
    return SourceSpec(name="site", website=WebsiteSource(url=url, **settings))


def harvest(source: SourceSpec, waits: Waits | None = None) -> Harvest:
    reader = open_website(source, {}, True, sleep=waits if waits is not None else Waits())
    reader.check()
    return reader.read(quiet)


def paths(found: Harvest, site: Any) -> list[str]:
    return [document.url.removeprefix(site.url.rstrip("/")) for document in found.documents]


def reasons(found: Harvest, site: Any) -> dict[str, str]:
    return {entry.url.removeprefix(site.url.rstrip("/")): entry.reason for entry in found.dropped}


def text(words: str) -> str:
    return f"<main><h1>Title</h1><p>{words}</p></main>"


def test_the_sitemap_comes_first_then_links_and_those_with_a_query_last(website):
    website.text("/robots.txt", f"Sitemap: {website.url}index.xml\n")
    website.add("/index.xml", f"<sitemapindex><loc>{website.url}pages.xml.gz</loc></sitemapindex>")
    pages = f"<urlset><url><loc>{website.url}z</loc></url><url><loc>{website.url}y</loc></url></urlset>"
    website.add("/pages.xml.gz", gzip.compress(pages.encode()), "application/gzip")
    website.page("/z", text('z <a href="/b?page=2">2</a> <a href="a">a</a>'))
    website.page("/y", text("y"))
    website.page("/", text("home"))
    website.page("/a", text('a <a href="/c">c</a>'))
    website.page("/c", text("c"))
    website.page("/b?page=2", text("b"))

    found = harvest(spec(website.url))

    assert paths(found, website) == ["/z", "/y", "/", "/a", "/c", "/b?page=2"]
    assert found.dropped == ()
    assert found.complete


def test_a_site_without_robots_and_sitemap_is_read_by_its_links(website):
    website.page(
        "/",
        text(
            'home <a href="https://elsewhere.example/x">x</a> <a href="/pic.png">p</a> <a href="/a#x">a</a>'
        ),
    )
    website.page("/a", text("a"))

    found = harvest(spec(website.url))

    assert paths(found, website) == ["/", "/a"]
    assert "/sitemap.xml" in website.requests
    assert "/pic.png" not in website.requests


def test_what_robots_and_exclude_paths_forbid_is_never_asked_for(website):
    website.text("/robots.txt", "User-agent: *\nDisallow: /private\nAllow: /private/open\n")
    website.page(
        "/",
        text('<a href="/private/x">1</a><a href="/private/open">2</a><a href="/shop/x">3</a> words around'),
    )
    website.page("/private/open", text("open"))
    website.moved("/private/open/moved", "/private/x")

    found = harvest(spec(website.url, exclude_paths=["/shop/"]))

    assert paths(found, website) == ["/", "/private/open"]
    assert list(reasons(found, website)) == ["/private/x", "/shop/x"]
    assert not {"/private/x", "/shop/x"} & set(website.requests)


def test_a_redirect_into_a_forbidden_path_is_not_followed(website):
    website.text("/robots.txt", "User-agent: *\nDisallow: /private\n")
    website.page("/", text('home <a href="/a">a</a>'))
    website.moved("/a", "/private/a")

    found = harvest(spec(website.url))

    assert "robots.txt forbids /private/a" in reasons(found, website)["/a"]
    assert "/private/a" not in website.requests


def test_every_page_that_gives_no_document_has_a_reason(website):
    website.page(
        "/",
        text(
            "home"
            + "".join(f'<a href="/{name}">{name}</a>' for name in "abcdefgh")
            + " and much more text here"
        ),
    )
    website.page("/a", text("a"), head='<meta name="robots" content="noindex, follow">')
    website.page("/b", text("b"), X_Robots_Tag="none")
    website.add("/c", b"%PDF", "application/pdf")
    website.page("/d", "<main><script>draw()</script></main>")
    website.moved("/e", "https://elsewhere.example/secret?token=1")
    website.page("/f", text("x" * (11 << 20)))
    website.moved("/g", "/g")
    website.pages.pop("/h", None)

    found = harvest(spec(website.url))

    assert paths(found, website) == ["/"]
    assert reasons(found, website) == {
        "/a": "asks robots not to keep it (noindex)",
        "/b": "asks robots not to keep it (noindex)",
        "/c": "is application/pdf, not HTML",
        "/d": "has no text; is it drawn by a script?",
        "/e": "redirects to https://elsewhere.example/secret, which is another site",
        "/f": "is larger than 10 MiB",
        "/g": "redirects more than 5 times",
        "/h": "answers 404",
    }
    assert found.complete


def test_links_of_a_nofollow_page_are_not_followed(website):
    website.page("/", text('home <a href="/a">a</a>'), head='<meta name="robots" content="nofollow">')
    website.page("/a", text("a"))

    assert paths(harvest(spec(website.url)), website) == ["/"]


def test_spellings_redirects_and_canonical_addresses_are_one_document(website):
    links = ["/a", "/a?utm_source=x", "/a#b", "/old", "/a?print=1"]
    website.page("/", text("home" + "".join(f'<a href="{link}">x</a>' for link in links)))
    canonical = '<link rel="canonical" href="/a">'
    website.page("/a", text("the page"), head=canonical)
    website.moved("/old", "/a")
    website.page("/a?print=1", text("the printed page"), head=canonical)

    found = harvest(spec(website.url))

    assert paths(found, website) == ["/", "/a"]
    assert found.documents[1].content_html == "<p>the page</p>"
    assert reasons(found, website) == {"/a?print=1": f"is the same page as {website.url}a"}
    assert website.requests.count("/a") == 2  # once by its own name, once behind the redirect


def test_the_page_at_the_canonical_address_comes_before_a_copy_that_was_read_earlier(website):
    website.page("/", text('home <a href="/copy">x</a><a href="/own">y</a>'))
    for path in ("/copy", "/own"):
        website.page(path, text(f"from {path}"), head='<link rel="canonical" href="/own">')

    found = harvest(spec(website.url))

    assert [document.content_html for document in found.documents][1:] == ["<p>from /own</p>"]
    assert list(reasons(found, website)) == ["/copy"]


def test_pages_that_all_call_themselves_the_home_page_stay(website):
    head = '<link rel="canonical" href="/">'
    website.page("/", text('home <a href="/a">a</a>'), head=head)
    website.page("/a", text("a"), head=head)

    assert paths(harvest(spec(website.url)), website) == ["/", "/a"]


def test_max_pages_cuts_the_crawl_and_says_in_one_row_how_much_is_left(website):
    links = "".join(f'<a href="/{name}">{name}</a>' for name in ("a", "b", "c", "d?e=1"))
    website.page("/", text("home, and much more text than there is in links" + links))
    website.page("/a", text("a"))

    found = harvest(spec(website.url, max_pages=2))

    assert not found.complete
    assert reasons(found, website) == {"/b": "maxPages (2) was reached; not read: this and 2 more"}


@pytest.mark.parametrize(
    ("broken", "complete"),
    [
        ({"status": 503}, False),
        ({"body": b"x" * ((50 << 20) + 1)}, False),
        ({"status": 404}, True),
    ],
    ids=["down", "too large", "gone"],
)
def test_pages_of_a_sitemap_that_is_there_and_not_read_are_not_taken_for_deleted(website, broken, complete):
    website.text("/robots.txt", f"Sitemap: {website.url}a.xml\nSitemap: {website.url}b.xml\n")
    website.add("/a.xml", f"<urlset><loc>{website.url}a</loc></urlset>")
    website.add("/b.xml", **broken)
    website.page("/", text("home"))
    website.page("/a", text("a"))

    found = harvest(spec(website.url))

    assert paths(found, website) == ["/a", "/"]
    assert found.complete is complete


def test_a_robots_that_is_too_long_to_be_read_is_no_permission(website):
    website.text("/robots.txt", "#" * (1 << 20) + "\nUser-agent: *\nDisallow: /\n")
    website.page("/", text("home"))

    with pytest.raises(
        SourceUnavailable, match=r"robots.txt is larger than 1 MiB; without it nothing may be read"
    ):
        harvest(spec(website.url))


def test_one_page_that_gives_no_answer_does_not_end_the_crawl(website, monkeypatch):
    website.page("/", text('home <a href="/a">a</a> <a href="/b">b</a>, and words around them'))
    website.page("/b", text("b"))
    send = requests.Session.send

    def cut(self: requests.Session, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        if request.path_url == "/a":
            raise requests.ConnectionError("cut off")
        return send(self, request, **settings)

    monkeypatch.setattr(requests.Session, "send", cut)

    found = harvest(spec(website.url))

    assert paths(found, website) == ["/", "/b"]
    assert reasons(found, website) == {"/a": "gives no answer (cut off), 5 times"}
    assert not found.complete


def test_progress_knows_how_many_pages_are_left(website):
    website.page("/", text('home <a href="/a">a</a><a href="/b">b</a>'))
    steps: list[tuple[int, int]] = []

    reader = open_website(spec(website.url, max_pages=2), {}, True, sleep=Waits())
    reader.read(lambda step=0, total=0, **_: steps.append((step, total)))

    assert steps == [(1, 2), (2, 2)]


def test_requests_keep_their_pace_and_a_slower_crawl_delay_wins(website):
    website.text("/robots.txt", "User-agent: *\nCrawl-delay: 7\n")
    website.page("/", text("home"))
    waits = Waits()

    reader = open_website(
        spec(website.url, requests_per_second=0.5), {}, True, sleep=waits, clock=lambda: sum(waits)
    )
    reader.check()
    reader.read(quiet)

    assert waits == [7.0] * (len(website.requests) - 1)


def test_a_crawl_delay_of_an_hour_is_refused(website):
    website.text("/robots.txt", "User-agent: *\nCrawl-delay: 3600\n")

    with pytest.raises(SourceRejected, match=r"website.url: .*robots.txt asks for 3600 s between requests"):
        harvest(spec(website.url))


def test_a_site_that_forbids_everything_is_refused_before_a_page_is_asked(website):
    website.text("/robots.txt", "User-agent: *\nDisallow: /\n")

    with pytest.raises(
        SourceRejected, match=r"sources\[site\].website.url: .*forbids / to finetune-operator; ask"
    ):
        harvest(spec(website.url))
    assert website.requests == ["/robots.txt"]


def test_a_robots_that_cannot_be_read_is_no_permission(website):
    website.add("/robots.txt", status=503)
    website.page("/", text("home"))

    with pytest.raises(
        SourceUnavailable, match=r"robots.txt answers 503, 5 times; without it nothing may be read"
    ):
        harvest(spec(website.url))


@pytest.mark.parametrize(
    ("failure", "wait"),
    [(Response("slow", 429, headers={"Retry-After": "2"}), 2.0), (Response("broken", 502), 0.5)],
)
def test_a_passing_failure_is_waited_out(website, failure, wait):
    website.page("/", text("home"))
    failures = [failure]
    website.before = lambda request: failures.pop() if failures and request.path == "/" else None
    waits = Waits()

    assert len(harvest(spec(website.url), waits).documents) == 1
    assert wait in waits


def test_a_page_that_stays_broken_is_dropped_and_nothing_may_be_deleted_for_it(website):
    website.page("/", text('home <a href="/a">a</a>'))
    website.add("/a", status=500)

    found = harvest(spec(website.url))

    assert reasons(found, website) == {"/a": "answers 500, 5 times"}
    assert not found.complete


def test_many_broken_pages_in_a_row_are_a_site_that_is_down(website):
    website.page(
        "/", text("home " + "".join(f'<a href="/{number}">{number}</a>' for number in range(9)) + "text" * 9)
    )
    website.before = lambda request: Response("", 503) if request.path[1:].isdigit() else None

    with pytest.raises(
        SourceUnavailable, match=r"website.url: .*/4 answers 503, 5 times, and so did the 4 pages"
    ):
        harvest(spec(website.url))


def test_an_address_where_nothing_listens_is_unavailable(unused_port):
    with pytest.raises(
        SourceUnavailable, match=rf"website.url: .*:{unused_port}.*no answer.*Connection refused"
    ):
        harvest(spec(f"http://127.0.0.1:{unused_port}"))


def test_a_name_that_nobody_has_is_unavailable():
    def nowhere(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    reader = open_website(spec("http://nowhere.example"), {}, True, sleep=Waits(), find=nowhere)

    with pytest.raises(SourceUnavailable, match=r"no answer .nowhere.example has no address"):
        reader.check()


def test_a_first_page_that_is_no_html_is_refused(website):
    website.add("/book", b"%PDF", "application/pdf")

    with pytest.raises(
        SourceRejected,
        match=r"website.url: .*/book is application/pdf, not HTML; write the address of a page",
    ):
        harvest(spec(website.url + "book"))


def test_a_site_that_lives_elsewhere_is_named(website):
    website.moved("/", "https://www.mill.example/")

    with pytest.raises(
        SourceRejected,
        match=r"redirects to https://www.mill.example/, which is another site; write the address",
    ):
        harvest(spec(website.url))


def test_a_site_without_text_is_refused_with_its_reasons(website):
    website.page("/", '<div id="app"></div><a href="/a"></a>')
    website.page("/a", '<div id="app"></div>')

    with pytest.raises(
        SourceRejected, match=r"has text \(2 x has no text; is it drawn by a script\?\); set contentSelector"
    ):
        harvest(spec(website.url))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://mill.example:port/"}, r"website.url: Port could not be cast"),
        (
            {"url": "http://mill.example/", "content_selector": "main["},
            r"contentSelector: main\[ is no CSS selector",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_before_a_request(settings, message):
    with pytest.raises(InvalidRun, match=message):
        open_website(spec(**settings), {}, True)


def test_a_page_becomes_a_document_with_its_facts(website):
    head = (
        '<meta name="description" content="Of rye &amp; oats"><meta property="article:published_time"'
        ' content="2024-03-01T10:00:00+02:00"><meta name="author" content="Ada"><meta property="article:section"'
        ' content="Milling"><meta property="article:tag" content="rye">'
    )
    website.page("/a/", '<main><h1>Rye &lt; oats</h1><p>See <a href="../b">this</a>.</p></main>', head=head)

    document = harvest(spec(website.url + "a/")).documents[0]

    assert (document.title_html, document.excerpt_html) == ("Rye &lt; oats", "Of rye &amp; oats")
    assert (document.date, document.author) == ("2024-03-01T08:00:00Z", "Ada")
    assert (document.categories, document.tags) == (("Milling",), ("rye",))
    assert document.post_id == document.url == website.url + "a/"
    assert document.content_html == f'<p>See <a href="{website.url}b">this</a>.</p>'


def test_a_server_may_not_hold_the_stage_with_an_endless_page(website):
    def endless(request: Request) -> Response | None:
        if request.path != "/a":
            return None
        return Response((b"<p>more</p>" * 9999 for _ in range(9999)), content_type="text/html")

    website.page("/", text('home <a href="/a">a</a>'))
    website.before = endless

    assert reasons(harvest(spec(website.url)), website) == {"/a": "is larger than 10 MiB"}
