"""Looking up and down a BeautifulSoup tree by name: what `find` and `find_parent` do, many times faster."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from bs4.element import PageElement, Tag


def above(node: PageElement, names: Collection[str]) -> Tag | None:
    """The nearest element around a node that has one of these names."""
    parent = node.parent
    while parent is not None:
        if parent.name in names:
            return parent
        parent = parent.parent
    return None


def first_below(tag: Tag, names: Collection[str]) -> Tag | None:
    """The first element in a tag, at any depth, that has one of these names."""
    return next(all_below(tag, names), None)


def all_below(tag: Tag, names: Collection[str]) -> Iterator[Tag]:
    """All of them, in order. Make a list before changing the tree."""
    for node in tag.descendants:
        if isinstance(node, Tag) and node.name in names:
            yield node


def is_gone(tag: Tag) -> bool:
    """Whether a tag was decomposed, which empties its name.

    `tag.decomposed` says the same, but looks through all that is below a tag that is still there.
    """
    return not tag.name
