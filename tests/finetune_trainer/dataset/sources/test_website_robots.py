"""robots.txt by RFC 9309, and sitemaps as they are found."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.dataset.sources.website_robots import parse_robots, parse_sitemap


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("Disallow: /a", "/abc", False),
        ("Disallow: /a", "/b", True),
        ("Disallow:", "/a", True),
        ("Disallow: /wp-admin/\nAllow: /wp-admin/ajax.php", "/wp-admin/ajax.php", True),
        ("Allow: /\nDisallow: /a", "/a", False),
        ("Disallow: /a\nAllow: /a", "/a", True),
        ("Disallow: /*.pdf$", "/x/y.pdf", False),
        ("Disallow: /*.pdf$", "/x/y.pdf?z", True),
        ("Disallow: /*?", "/a?b", False),
        ("Disallow: /a$", "/a", False),
        ("Disallow: /a$", "/ab", True),
        ("Disallow: /caf%C3%A9", "/caf%c3%a9/x", False),
        ("Disallow: /caf\u00e9", "/caf%C3%A9", False),
        ("Disallow: *", "/a", False),
    ],
)
def test_the_longest_rule_wins(rules, path, allowed):
    assert parse_robots(f"User-agent: *\n{rules}", "finetune-operator").allows(path) is allowed


def test_our_own_group_comes_before_that_of_everybody():
    robots = parse_robots(
        "User-Agent: other\nUser-agent: Finetune-Operator # us\nCrawl-delay: 2.5\nDisallow: /a\n\n"
        "User-agent: *\nDisallow: /\nSitemap: https://mill.example/s.xml#1\n",
        "finetune-operator",
    )

    assert robots.allows("/b")
    assert not robots.allows("/a")
    assert robots.crawl_delay_seconds == 2.5
    assert robots.sitemaps == ("https://mill.example/s.xml#1",)


def test_an_empty_or_strange_file_allows_everything():
    assert parse_robots("", "x").allows("/")
    assert parse_robots("<html>Disallow: /</html>", "x").allows("/")
    assert parse_robots("Disallow: /", "x").allows("/")  # in no group


@settings(deadline=None)
@given(st.text(), st.text())
def test_no_file_makes_it_fail(text, path):
    parse_robots(f"User-agent: *\n{text}", "x").allows(path)


def test_sitemaps_of_every_form_are_read():
    pages = b"<urlset xmlns:image='x'><url>\n<loc> http://m/a?b=1&amp;c </loc><image:loc>http://m/i</image:loc></url></urlset>"

    assert parse_sitemap(pages).pages == ("http://m/a?b=1&c",)
    assert parse_sitemap(gzip.compress(pages)).pages == ("http://m/a?b=1&c",)
    assert parse_sitemap(b"<url><loc><![CDATA[http://m/a]]></loc></url>").pages == ("http://m/a",)
    assert parse_sitemap(b"http://m/a\r\nhttp://m/b\nnot one\n").pages == ("http://m/a", "http://m/b")
    assert parse_sitemap(
        b"<sitemapindex><sitemap><loc>http://m/s</loc></sitemap></sitemapindex>"
    ).sitemaps == ("http://m/s",)


@pytest.mark.parametrize("body", [b"", b"\x1f\x8bbroken", b"<html>login</html>", b"\xff\xfe", b"<loc>"])
def test_what_is_no_sitemap_names_no_pages(body):
    assert parse_sitemap(body).pages == ()
