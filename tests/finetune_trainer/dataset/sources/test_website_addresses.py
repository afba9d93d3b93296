"""Two spellings of a page are one address, and other sites are none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.dataset.sources.website_addresses import Site, file_ending

SITE = Site.of("https://Mill.example/")


@pytest.mark.parametrize(
    ("href", "page"),
    [
        ("/a", "https://mill.example/a"),
        ("b", "https://mill.example/blog/b"),
        ("../c/./d", "https://mill.example/c/d"),
        ("?page=2", "https://mill.example/blog/?page=2"),
        ("/a#part", "https://mill.example/a"),
        ("http://mill.example", "https://mill.example/"),
        ("HTTPS://MILL.EXAMPLE:443/A", "https://mill.example/A"),
        ("/a?utm_source=x&b=1&fbclid=2", "https://mill.example/a?b=1"),
        ("/caf\u00e9/%7ex?q=%c3", "https://mill.example/caf%C3%A9/~x?q=%C3"),
        ("/a?flag", "https://mill.example/a?flag"),
        ("https://www.mill.example/a", ""),
        ("https://mill.example:8443/a", ""),
        ("https://mill.example@evil.example/", ""),
        ("https://ann:pass@mill.example/", ""),
        ("mailto:a@mill.example", ""),
        ("javascript:go()", ""),
        ("http://[", ""),
        ("http://mill.example:x/", ""),
    ],
)
def test_a_page_has_one_spelling(href, page):
    assert SITE.page(href, base="https://mill.example/blog/") == page


def test_ports_of_their_own_keep_their_scheme():
    assert Site.of("http://mill.example:8080/").page("https://mill.example:8080/") == ""


def test_names_with_umlauts_are_the_names_that_the_network_knows():
    assert (
        Site.of("http://m\u00fchle.example/").page("http://xn--mhle-0ra.example/")
        == Site.of("http://m\u00fchle.example").root
    )


def test_files_are_told_from_pages():
    assert [file_ending(f"https://mill.example/{name}") for name in ("a.PDF", "a.html", "a", "v1.2", "a.png?x=1")] == [
        ".pdf", "", "", "", ".png",
    ]  # fmt: skip


@settings(deadline=None)
@given(st.text(max_size=60))
def test_a_spelling_is_final_and_no_link_makes_it_fail(href):
    page = SITE.page(href)

    assert page == "" or SITE.page(page) == page
