"""What is taken off a page: its text, its facts, its links."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.dataset.sources.website_page import Page, parse_page

URL = "https://mill.example/blog/rye"


def page(body: str, head: str = "", selector: str = "", **headers: str) -> Page:
    html = f"<html><head>{head}</head><body>{body}</body></html>"
    named = {"Content-Type": "text/html; charset=utf-8"} | {
        key.replace("_", "-"): value for key, value in headers.items()
    }
    parsed = parse_page(html.encode(), URL, named, selector, "finetune-operator")
    assert parsed is not None
    return parsed


AROUND = "<header><h1>The Mill</h1></header><nav>menu</nav>{}<aside>ads</aside><footer>(c)</footer>"


@pytest.mark.parametrize(
    "inside",
    [
        "<main><p>The text.</p></main>",
        "<div role='main'><p>The text.</p></div>",
        "<article><header>by Ada</header><p>The text.</p><footer>tags</footer></article>",
        "<main><div class='breadcrumbs'>a</div><article><p>The text.</p></article><div id='comments'>yes</div></main>",
        "<div class='wrap'><div class='sidebar'><p>ads</p></div><div><div><p>The text.</p></div></div></div>",
        "<div><div><p>The text.</p></div><div>a bar</div></div>",
    ],
)
def test_the_main_part_is_found_and_what_stands_around_goes(inside):
    assert page(AROUND.format(inside)).content_html.strip() == "<p>The text.</p>"


def test_a_page_nested_thousands_deep_is_read():
    depth = 4000

    read = page("<div class='box'>" * depth + "<p>The text.</p>" + "</div>" * depth)

    assert "<p>The text.</p>" in read.content_html


def test_a_body_without_any_block_is_its_own_text():
    assert page("Just words<br>and more").content_html == "Just words<br/>and more"


def test_a_selector_wins_and_takes_all_that_fits_once():
    body = "<main>no</main><div class='x'>one <div class='x'>inner</div></div><aside class='x'>two</aside>"

    parsed = page(body, selector=".x")

    assert (
        parsed.content_html
        == '<div class="x">one <div class="x">inner</div></div><aside class="x">two</aside>'
    )
    assert page(body, selector=".y").without_text == "has no part that fits contentSelector .y"


TEXT = "The text of it, which is long enough to be most of what there is to read on the page."


def test_the_part_that_somebody_wrote_comes_without_byline_and_tags():
    post = "<h1>Rye</h1><div class='entry-content'><p>" + TEXT + "</p></div><p>Posted by Ada</p>"

    assert page(f"<main>{post}</main>").content_html == f"<p>{TEXT}</p>"
    assert "Posted" in page(f"<main>{post}<p>{TEXT}</p></main>").content_html


def test_an_archive_with_one_post_is_a_list_too():
    body = "<main><h1>Tag: rye</h1><h2><a href='/rye'>Rye</a></h2><p>The first words of it.</p></main>"
    html = f"<html><body class='archive tag'>{body}</body></html>".encode()

    archive = parse_page(html, URL, {}, "", "x")

    assert archive is not None
    assert archive.without_text == "lists other pages"
    assert page(body).content_html


def test_a_list_of_other_pages_is_no_text():
    card = "<article><h2><a href='/{0}'>Post {0}</a></h2><p>The first words of it.</p></article>"
    links = (
        "<ul>" + "".join(f"<li><a href='/{name}'>A page about {name}</a></li>" for name in "abcdef") + "</ul>"
    )

    assert (
        page("<main>" + "".join(card.format(number) for number in range(4)) + "</main>").without_text
        == "lists other pages"
    )
    assert page(f"<main><h1>All</h1>{links}</main>").without_text == "lists other pages"
    assert page(f"<main>{links}</main>", selector="main").content_html  # who names a part wants it


@pytest.mark.parametrize(
    ("body", "head", "title"),
    [
        (
            "<main><h1>Rye <!-- no -->bread <a href='#r'>¶</a><button>Copy</button></h1>x</main>",
            "<meta property='og:title' content='Other'>",
            "Rye bread",
        ),
        (
            "<header><h1>The Mill</h1></header><main>x</main>",
            "<meta property='og:title' content='Rye'>",
            "Rye",
        ),
        ("<div><h1>Rye</h1>x</div>", "<title>Rye | Mill</title>", "Rye"),
        ("<div><h1>Mill</h1><h1>Rye</h1>x</div>", "<title>Rye | Mill</title>", "Rye | Mill"),
        ("<p>x</p>", "", ""),
    ],
)
def test_the_title_is_the_heading_of_the_text(body, head, title):
    assert page(body, head).facts.title == title


def test_a_heading_that_says_the_title_is_not_said_twice():
    assert page("<main><h1>Rye</h1><h1>Oats</h1><p>x</p></main>").content_html == "<h1>Oats</h1><p>x</p>"


PUBLISHED = "<meta property='article:published_time' content='2024-03-01T10:00:00+02:00'>"
DATED = '{"@graph":[{"@type":["NewsArticle"],"datePublished":"2024-03-02"}]}'
TUESDAY = "Tue, 05 Mar 2024 10:00:00 GMT"
LINKED = '<script type="application/ld+json">{}</script>'


@pytest.mark.parametrize(
    ("head", "body", "headers", "date"),
    [
        (PUBLISHED, "", {}, "2024-03-01T08:00:00Z"),
        (LINKED.format(DATED), "", {}, "2024-03-02T00:00:00Z"),
        ("<meta name='DC.date' content='2024/03/03'>", "", {}, "2024-03-03T00:00:00Z"),
        ("", "<article><time datetime='2024-03-04 09:30'>then</time></article>", {}, "2024-03-04T09:30:00Z"),
        ("<meta name='date' content='soon'>", "", {"Last_Modified": TUESDAY}, "2024-03-05T10:00:00Z"),
        (
            "", "",
            {"Last_Modified": TUESDAY, "Date": "Tue, 05 Mar 2024 10:00:01 GMT"},
            "1970-01-01T00:00:00Z",
        ),
        ("", "", {}, "1970-01-01T00:00:00Z"),
    ],
)  # fmt: skip
def test_the_date_comes_from_the_surest_place(head, body, headers: dict[str, Any], date):
    assert page(f"<p>x</p>{body}", head, **headers).facts.date == date


def test_author_tags_and_categories_come_from_linked_data_and_microformats():
    data = (
        '{"@graph":[{"@type":"BlogPosting","author":[{"name":"Ada"},{"name":"Bo"}],"keywords":"rye, bread"},'
        '{"@type":"BreadcrumbList","itemListElement":[{"position":2,"name":"Blog"},{"position":1,"name":"Home"},'
        '{"position":3,"item":{"name":"Milling"}},{"position":4,"name":"Rye"}]}]}'
    )
    facts = page("<p>x <a rel='tag' href='/t'>oats</a></p>", LINKED.format(data)).facts

    assert (facts.author, facts.categories, facts.tags) == (
        "Ada, Bo",
        ("Blog", "Milling"),
        ("bread", "oats", "rye"),
    )
    block = (
        "<main><p>x</p><div class='taxonomy-category'><a rel='tag' href='/c'>News</a></div>"
        "<a rel='tag' href='/t'>rye</a></main>"
    )
    post = page(block + "<div class='wp-block-post-author-name'>Di</div>").facts
    assert (post.author, post.categories, post.tags) == ("Di", ("News",), ("rye",))
    marked = page(
        "<div class='breadcrumbs'><a href='/'>Home</a><a href='/g'>Guides</a></div><p>x</p><i rel='author'>Cy</i>"
    ).facts
    assert (marked.author, marked.categories) == ("Cy", ("Guides",))


def test_broken_linked_data_is_passed_over():
    assert page("<p>x</p>", LINKED.format('{"@type": ') + LINKED.format("[1, null, [{}]]")).facts.author == ""


def test_links_are_absolute_and_those_that_robots_must_not_follow_are_left_out():
    parsed = page(
        "<p>x <a href='a'>a</a><a href='b' rel='nofollow'>b</a><a href='http://['>c</a></p>"
        "<nav><a href='/d'>d</a></nav>",
        "<base href='/base/'>",
    )

    assert parsed.links == ("https://mill.example/base/a", "https://mill.example/d")
    assert 'href="https://mill.example/base/a"' in parsed.content_html


def test_a_base_that_is_no_address_counts_for_nothing():
    assert page("<p>x <a href='/a'>a</a></p>", "<base href='http://['>").links == ("https://mill.example/a",)


@pytest.mark.parametrize(
    ("head", "headers", "noindex"),
    [
        ("<meta name='ROBOTS' content='NoIndex'>", {}, True),
        ("<meta name='robots' content='none'>", {}, True),
        ("<meta name='finetune-operator' content='noindex'>", {}, True),
        ("<meta name='googlebot' content='noindex'>", {}, False),
        ("", {"X_Robots_Tag": "noarchive, noindex"}, True),
        ("", {"X_Robots_Tag": "otherbot: noindex"}, False),
        ("<meta name='robots' content='index, follow'>", {}, False),
    ],
)
def test_noindex_is_understood_in_every_form(head, headers, noindex):
    assert page("<p>x</p>", head, **headers).noindex is noindex


def test_the_charset_of_the_answer_and_of_the_page_are_honoured():
    latin = "<p>M\u00fchle</p>".encode("latin-1")
    by_header = parse_page(latin, URL, {"Content-Type": "text/html; charset=iso-8859-1"}, "", "x")
    by_meta = parse_page(b"<head><meta charset='iso-8859-1'></head>" + latin, URL, {}, "", "x")

    assert by_header is not None
    assert by_meta is not None
    assert "M\u00fchle" in by_header.content_html
    assert "M\u00fchle" in by_meta.content_html


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(body):
    parse_page(body, URL, {"Content-Type": "text/html; charset=nonsense"}, "", "x")
