"""What no reader learns from: scripts, forms, widgets, and blocks that copy other posts into this one.

Copies of other posts would also leak the answers of one side of the split into the other. Must not know where the
HTML came from, nor what becomes of the rest.
"""

from __future__ import annotations

import re

from bs4 import BeautifulSoup
from bs4.element import NavigableString, PreformattedString, Tag

from finetune_trainer.dataset.cleaning.tree import above, all_below, first_below, is_gone

_DROPPED_TAGS = frozenset(
    "script style form input button select textarea svg noscript nav template label canvas head".split()  # noqa: SIM905
)
_PERHAPS_WRAPPED = frozenset({"form", "noscript", "nav", "template", "label", "head"})
"""Dropped with their text, unless hardly anything else is on the page: some sites put everything into a form."""

DYNAMIC_BLOCK = re.compile(
    r"""^(?:
    wp-block-(?:latest-posts|latest-comments|comments?|comments-.+|post-comments.*|archives|categories|tag-cloud
        |calendar|rss|query.*|navigation.*|search|loginout|page-list|social-links?|site-.+
        |post-(?!content(?:-is-layout-\w+)?$).+
        |table-of-contents|rank-math-toc-block|yoast-seo-table-of-contents
        |jetpack-(?:related-posts|subscriptions|contact-form|sharing-buttons?))
    |comment-respond|comments-area|comment-list
    |sharedaddy|sd-sharing.*|sd-block|jp-relatedposts|jetpack-likes-widget.*|addtoany.*|heateor_sss.*|shareaholic-.+
    |social-share.*|essb_.+|yarpp.*|rp4wp-.+|crp_related|post-navigation|ez-toc-container|lwptoc
    |elementor-widget-(?:posts|archive-posts|loop-grid|loop-carousel|portfolio|share-buttons|nav-menu|form|login
        |post-navigation|post-comments|author-box|search|search-form|sitemap|table-of-contents
        |wp-widget-(?!text$|custom_html$|media_).+)
    |(?:widget_)?(?:recent_entries|recent_comments|tag_cloud)
    )$""",
    re.VERBOSE,
)
"""Class names of what the site computes for each request, and of the share buttons that plugins add."""
_GUTTER = re.compile(r"^(?:gutter|linenos|line-numbers-rows|hljs-ln-numbers|crayon-nums.*)$")
_CODE = frozenset({"pre", "code"})
_QUESTIONS = frozenset({"h2", "h3", "h4", "h5", "summary"})
_READ_ALOUD = "screen-reader-text"
_SHORTCODE = re.compile(
    r"\[/?(?:contact-form-7|contact-form|gallery|caption|embed|audio|video|playlist|wpforms|gravityform|ninja_form"
    r"|formidable|mc4wp_form|elementor-template|vc_\w+|et_pb_\w+)(?:\s[^\[\]]*)?/?\]"
    r"|\[/?[A-Za-z][\w-]*(?:\s+[\w-]+=(?:\"[^\"\[\]]*\"|'[^'\[\]]*'|[”“″][^”“″\[\]]*[”“″]))+\s*/?\]"
)
"""Names that plugins use, and any name with attributes; other words in brackets are somebody's words."""


def drop_machinery(soup: BeautifulSoup, keep_wrappers: bool = False) -> None:
    """Remove in place what no reader learns from. Doing it twice changes nothing.

    With `keep_wrappers`, forms and their like stay with their text; their fields go in any case.
    """
    dropped = _DROPPED_TAGS - _PERHAPS_WRAPPED if keep_wrappers else _DROPPED_TAGS
    doomed: list[Tag] = []
    for node in list(soup.descendants):
        if isinstance(node, Tag):
            if not node.attrs and node.name not in dropped:
                continue
            if node.name in dropped:
                _rescue(node)
                doomed.append(node)
            elif _is_machinery(node):
                doomed.append(node)
        elif isinstance(node, PreformattedString):  # comments, CDATA, doctypes
            node.extract()
        elif isinstance(node, NavigableString) and "[" in node and above(node, _CODE) is None:
            text = _SHORTCODE.sub("", node)
            if len(text) != len(node):
                node.replace_with(NavigableString(text))
    for tag in doomed:
        if not is_gone(tag):
            tag.decompose()


def _is_machinery(tag: Tag) -> bool:
    names = tag.get("class")
    if not names:
        return False
    for name in names if isinstance(names, list) else [names]:
        if DYNAMIC_BLOCK.match(name) or _GUTTER.match(name):
            return True
        if name == _READ_ALOUD:
            return not _is_all_of_its_link(tag)
    return False


def _is_all_of_its_link(tag: Tag) -> bool:
    """Whether a text for screen readers is the only name that a link has."""
    link = above(tag, {"a"})
    if link is None:
        return False
    own, said = tag.get_text().strip(), ""
    for text in link.strings:
        said += text
        if len(said.strip()) > len(own):
            return False
    return said.strip() == own and first_below(link, {"img"}) is None


def _rescue(tag: Tag) -> None:
    """Move out what a reader sees although its tag is machinery: questions on toggles, pictures loaded late."""
    if tag.name == "button" and (tag.has_attr("aria-expanded") or above(tag, _QUESTIONS)):
        for child in list(tag.children):
            tag.insert_before(child.extract())
    elif tag.name == "noscript" and (inside := list(all_below(tag, {"a", "img"}))):
        if tag.find_parent(class_="wp-playlist"):
            for link in (one for one in inside if one.name == "a"):
                tag.insert_before(link.extract())
            return
        shown = tag.find_previous("img")
        for image in (one for one in inside if one.name == "img"):
            if shown is not None and not image_source(shown) and image_source(image):
                shown.replace_with(image.extract())
                return


def image_source(image: Tag) -> str:
    """Where a picture lies; empty for pixels and placeholders.

    What a script is to load later comes first: `src` holds a stand-in until then.
    """
    for name in ("data-lazy-src", "data-src", "data-original", "src", "data-orig-file", "data-large_image"):
        source = str(image.get(name) or "").strip()
        if source and not source.lower().startswith(("data:", "about:")):
            return source
    for name in ("srcset", "data-srcset", "data-lazy-srcset"):
        choices = [part.split() for part in str(image.get(name) or "").split(", ")]
        if choices and choices[-1] and not choices[-1][0].lower().startswith("data:"):
            return choices[-1][0]
    return ""
