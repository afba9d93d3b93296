"""Cleaning: what is kept, what is dropped, and that no HTML can break it."""

from __future__ import annotations

import time

import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.sections import split_sections
from finetune_trainer.dataset.cleaning.html import clean_html, excerpt_text, is_machine_made, plain_text
from finetune_trainer.dataset.cleaning.machinery import drop_machinery

BASE = "https://site.example/blog/post/"
PARTS = (
    "<p>text [gallery] one</p>", "<ul><li>a<ul><li>b</li></ul></li></ul>", "<pre>code\n  [gallery]</pre>", "<!--c-->",
    '<table><tr><td rowspan="3">a|b</td><td>c</td></tr><tr><td>d</td></tr></table>', "<h2>Head</h2>", "loose ",
    '<div class="wp-block-query">x</div>', '<a href="/x"><h3>Card</h3></a>',
    '<img src="/a.png">', "<button aria-expanded='true'>Ask</button>", "<script>s()</script>",
)  # fmt: skip


@pytest.mark.parametrize(
    ("html", "markdown"),
    [
        ("<h2>Prices</h2><p>Ten <b>pounds</b>.</p>", "## Prices\n\nTen **pounds**."),
        ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "- a\n  - b\n- c"),
        ("<ol><li>a</li><li>b</li></ol>", "1. a\n2. b"),
        ("<p>snake_case *stays* 1. and <code>a_b</code></p>", "snake_case *stays* 1. and `a_b`"),
        ("<blockquote><p>So it goes.</p></blockquote>", "> So it goes."),
        ("<details><summary>More</summary><p>text</p></details>", "More\n\ntext"),
        ("<p>a&nbsp;b &amp; &#8217;c&#8217; soft\u00adware</p>", "a b & ’c’ software"),
        ('<p><a href="../other/?utm_source=x&p=1">link</a></p>', "[link](https://site.example/blog/other/?p=1)"),
        ('<p><a href="mailto:a@b.example">a@b.example</a></p>', "[a@b.example](mailto:a@b.example)"),
        ('<p><a href="tel:+441632">ring</a></p>', "[ring](tel:+441632)"),
        ('<p><a href="#top">top</a> <a href="javascript:x()">run</a></p>', "top run"),
        ('<p><a href="http://[bad">odd</a></p>', "odd"),
        ('<p><a href="/a_(b)">odd</a></p>', "[odd](https://site.example/a_%28b%29)"),
        ('<p><img src="/mill.png" alt="The mill" title="x"></p>', "![The mill](https://site.example/mill.png)"),
        ('<p><img src="data:x" data-src="/m.png" alt="M"></p>', "![M](https://site.example/m.png)"),
        ('<p><img src="/lazy/blank.gif" data-lazy-src="/m.png" alt="M"></p>', "![M](https://site.example/m.png)"),
        ('<a href="/big"><img src="/s.png" alt="S"></a>', "[![S](https://site.example/s.png)](https://site.example/big)"),
        ('<figure><img src="/m.png" alt="M"><figcaption>Cap</figcaption></figure>', "![M](https://site.example/m.png)\n\nCap"),
        ('<iframe src="https://v.example/1" title="A film"></iframe>', "[A film](https://v.example/1)"),
        ('<video><source src="/v.mp4"></video>', "[site.example](https://site.example/v.mp4)"),
    ],
)  # fmt: skip
def test_what_readers_learn_from_is_kept(html, markdown):
    assert clean_html(html, BASE) == markdown


def test_tables_keep_every_cell_and_escape_bars():
    html = "<table><thead><tr><th>Name</th><th>Price</th></tr></thead><tr><td>a|b</td><td>£1<br>or 2</td></tr></table>"

    assert clean_html(html) == "| Name | Price |\n| --- | --- |\n| a\\|b | £1 or 2 |"


def test_code_stays_byte_for_byte_with_its_language():
    code = "def f(x):\n\n\n    return x  # a_b *c* [gallery]\u00a0"

    cleaned = clean_html(f'<pre class="wp-block-code"><code class="language-python">{code}</code></pre>')

    assert cleaned == f"```python\n{code}\n```"


def test_code_with_fences_in_it_gets_a_longer_fence():
    assert clean_html("<pre>```\nx\n```</pre>") == "````\n```\nx\n```\n````"


def test_line_breaks_in_code_are_lines():
    assert clean_html("<pre>a<br>b</pre>") == "```\na\nb\n```"


@pytest.mark.parametrize(
    "html",
    [
        "<script>x()</script>",
        "<style>p{}</style>",
        "<form><label>Name <input></label><button>Send</button></form>",
        "<!-- secret -->",
        "<svg><text>x</text></svg>",
        "<noscript>turn it on</noscript>",
        '<img src="data:image/gif;base64,xx">',
        '<img src="/pixel.gif" width="1" height="1">',
        '<ul class="wp-block-latest-posts__list wp-block-latest-posts"><li>Other post</li></ul>',
        '<div class="wp-block-query"><p>Other post</p></div>',
        '<div class="wp-block-post-title">Again</div>',
        '<div class="sharedaddy">Share</div>',
        '<p>[contact-form-7 id="1" title="Contact"]</p>',
        '<p>[tide_widget station="marrowby" days="7"]</p>',
        "<p>[tide_widget days=&#8221;7&#8243;]</p>",
        "<nav>Home</nav>",
    ],
)
def test_what_the_site_adds_is_dropped(html):
    assert clean_html(f"<p>kept</p>{html}") == "kept"


@pytest.mark.parametrize(
    "names",
    [
        "wp-block-post-content",
        "entry-content wp-block-post-content is-layout-flow wp-block-post-content-is-layout-flow",
        "elementor-element elementor-widget elementor-widget-wp-widget-text",
    ],
)
def test_a_block_that_holds_somebodys_words_is_no_widget(names):
    assert clean_html(f'<div class="{names}"><p>kept</p></div>') == "kept"


def test_brackets_that_are_no_known_shortcode_stay():
    assert clean_html("<p>[simple boat] and <code>[gallery]</code></p>") == "[simple boat] and `[gallery]`"


def test_titles_lose_tags_and_entities_but_no_text():
    assert plain_text("Markup: Title <em>With</em> <b>Mark<sup>up</sup></b> &amp; more") == (
        "Markup: Title With Markup & more"
    )


def test_machine_made_excerpts_lose_their_dots():
    assert excerpt_text("<p>It was a dark night [&hellip;]</p>\n") == "It was a dark night"
    assert is_machine_made("<p>It was a dark night [&hellip;]</p>\n")
    assert not is_machine_made("<p>It was a dark night.</p>")


def test_dropping_twice_drops_nothing_more():
    soup = BeautifulSoup('<p>a [gallery ids="1"]<img src="x"><!--c--></p><form>f</form>', "lxml")
    drop_machinery(soup)
    once = str(soup)

    drop_machinery(soup)

    assert str(soup) == once


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
def test_what_was_cleaned_of_machinery_once_gives_the_same_markdown(html):
    soup = BeautifulSoup(f"<html><body>{html}</body></html>", "lxml")
    drop_machinery(soup)

    assert clean_html(str(soup.body.decode_contents()), BASE) == clean_html(html, BASE)


def test_a_line_that_only_looks_like_a_fence_hides_no_heading():
    cleaned = clean_html("<p>```</p><h2>Gears</h2><p><code>``x``</code> runs</p>")

    assert [section.heading for section in split_sections(cleaned)] == ["", "Gears"]


def test_code_around_words_that_look_like_a_fence_hides_no_heading():
    cleaned = clean_html("<p>```</p><pre># code</pre><p>```</p><h2>Gears</h2><p>turn</p>")

    assert [section.heading for section in split_sections(cleaned)] == ["", "Gears"]
    assert "```\n# code\n```" in cleaned


@pytest.mark.parametrize("blank", ["", "\u200b", "\ufeff", "\u00ad"])
def test_a_link_without_words_leaves_no_brackets(blank):
    assert clean_html(f'<p>a <a href="/x">{blank}</a><b>{blank}</b>b</p><h2>{blank}</h2>', BASE) == "a b"


def test_a_paragraph_that_is_an_escaped_picture_is_the_picture():
    tag = '&lt;img src="https://a.example/b.gif" alt="A page called "What?" here." /&gt;'

    assert clean_html(f"<p>{tag}</p>") == '![A page called "What?" here.](https://a.example/b.gif)'
    for kept in (f"<p>Write {tag}</p>", f"<pre>{tag}</pre>", f"<p><code>{tag}</code></p>"):
        assert '<img src="https://a.example/b.gif"' in clean_html(kept)


def test_hard_wrapped_lines_are_one_line():
    assert clean_html("<p>one\n  two<br />\nthree</p>") == "one two\nthree"


def test_words_beside_bold_ones_stay_apart():
    assert clean_html("<p>one<b>\ntwo</b> <i>three </i>four</p>") == "one **two** *three* four"


def test_list_numbers_follow_start_and_value():
    html = '<ol start="4"><li>a</li><li value="9">b</li><li>c</li></ol>'

    assert clean_html(html) == "4. a\n9. b\n10. c"


def test_an_empty_item_and_words_between_items_leave_the_numbers_as_a_browser_shows_them():
    html = "<ol><li></li><p>x</p><li>b</li><p>y</p><li>c</li></ol>"

    assert clean_html(html).split() == ["x", "2.", "b", "y", "3.", "c"]


@pytest.mark.parametrize(
    ("piece", "count"), [("<li>item</li>", 3000), ("<noscript>a</noscript>", 3000), ("<noscript>", 1500)]
)
def test_much_of_one_kind_is_looked_at_once_each(piece, count):
    began = time.process_time()

    clean_html("<ol>" + piece * count + "</ol>")

    assert time.process_time() - began < 2  # less than half a second; each looked at from the start takes 4


def test_tables_nested_a_thousand_deep_are_looked_at_once_each():
    began = time.process_time()

    assert clean_html("<table><tr><td>" * 1600 + "deep" + "</td></tr></table>" * 1600) == "deep"
    assert time.process_time() - began < 2  # a tenth of a second; each looked through to the end takes 5


def test_nesting_too_deep_for_a_converter_becomes_text():
    assert clean_html("<div>" * 3000 + "deep" + "</div>" * 3000) == "deep"


def test_a_link_of_thousands_of_parts_for_screen_readers_is_read():
    parts = "<span class='screen-reader-text'>part</span>" * 4000

    assert clean_html(f'<a href="https://mill.example/x">{parts}Next</a>') == "[Next](https://mill.example/x)"


FRAGMENT = st.lists(
    st.sampled_from(
        ["<p>", "</p>", "<a href='", "'>", "<pre>", "<code class='language-x'>", "<table>", "<td colspan='",
         "<img src=", "<iframe src=//", "<li>", "<h2>", "</h2>", "[gallery", "]", "&#0;", "&#xD800;",
         "\ud800", "```", "|", "<!--",
         "-->",
         "<div class='wp-block-query'>", "</div>", "<br>", "text ", "\u200b", "http://[", "<source src=x>", "<video>"]
    )
    | st.text(max_size=8),
    max_size=30,
).map("".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(FRAGMENT)
def test_no_html_breaks_the_cleaning_and_the_same_gives_the_same(html):
    first = clean_html(html, BASE)

    assert clean_html(html, BASE) == first
    assert "\x00" not in first
    first.encode("utf-8")


@settings(max_examples=100, deadline=None)
@given(FRAGMENT)
def test_no_title_breaks_the_cleaning(html):
    assert plain_text(html) == " ".join(plain_text(html).split())
