"""Reads the sample site's folder into what the WordPress seed is given. Pure: reads files, speaks to no server."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import yaml

from devcluster.errors import DevclusterError
from devcluster.paths import PACKAGE

FOLDER = PACKAGE / "sample_site"
_FIRST_IMAGE_ID, _FIRST_POST_ID = 11, 101
_IMAGE_TYPES = {".png", ".svg", ".jpg", ".jpeg", ".webp"}
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n(.*)\Z", re.DOTALL)


@dataclass(frozen=True)
class SampleSite:
    """The site with its address filled in; equal folders give equal digests, ids and dates."""

    seed: dict[str, Any]
    digest: str
    posts: int


def read_site(home: str, folder: Path = FOLDER) -> SampleSite:
    """Reads the folder for a site that answers at `home`, such as http://127.0.0.1:8091.

    Raises:
        DevclusterError: a post names an author, a category or an image that is not there, or lacks a field.
    """
    facts = yaml.safe_load((folder / "site.yaml").read_text())
    files = sorted(path for path in (folder / "media").iterdir() if path.suffix in _IMAGE_TYPES)
    images = [_image(path, _FIRST_IMAGE_ID + number) for number, path in enumerate(files)]
    posts = [_post(path, home) for path in sorted((folder / "posts").glob("*.html"))]
    posts.sort(key=lambda post: (post["date"], post["slug"]))
    for number, post in enumerate(posts):
        post["id"] = _FIRST_POST_ID + number
    _check(
        posts,
        authors={author["login"] for author in facts["authors"]},
        categories=set(_category_paths(facts["categories"])),
        images={image["name"] for image in images},
    )
    seed = {
        "home": home,
        "title": facts["title"],
        "tagline": facts["tagline"],
        "timezone": facts.get("timezone", "UTC"),
        "authors": facts["authors"],
        "categories": facts["categories"],
        "images": images,
        "posts": posts,
    }
    return SampleSite(seed, _digest(json.dumps(seed, sort_keys=True)), len(posts))


def _post(path: Path, home: str) -> dict[str, Any]:
    match = _FRONT_MATTER.match(path.read_text(encoding="utf-8"))
    if match is None:
        raise DevclusterError(f"{path}: expected YAML between two `---` lines, then HTML")
    fields = yaml.safe_load(match[1])
    missing = sorted({"title", "slug", "type", "date", "author"} - set(fields))
    if missing:
        raise DevclusterError(f"{path}: the front matter lacks {', '.join(missing)}")
    html = re.sub(r"\{\{media:([^}]+)\}\}", rf"{home}/wp-content/uploads/\1", match[2].strip())
    post = {
        "title": fields["title"],
        "slug": fields["slug"],
        "type": fields["type"],
        "date": _mysql_date(fields["date"], path),
        "author": fields["author"],
        "categories": fields.get("categories") or [],
        "tags": [str(tag) for tag in fields.get("tags") or []],
        "excerpt": fields.get("excerpt") or "",
        "featured_image": fields.get("featured_image"),
        "html": html.replace("{{home}}", home),
        "mentioned_images": re.findall(r"\{\{media:([^}]+)\}\}", match[2]),
    }
    post["digest"] = _digest(json.dumps(post, sort_keys=True))
    return post


def _image(path: Path, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": path.name,
        "file": str(path),
        "title": path.stem.replace("-", " ").capitalize(),
        "type": mimetypes.guess_type(path.name)[0],
        "date": "2024-01-01 08:00:00",
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def _category_paths(tree: list[dict[str, Any]], above: str = "") -> list[str]:
    paths = []
    for category in tree:
        path = above + category["name"]
        paths += [path, *_category_paths(category.get("children") or [], path + "/")]
    return paths


def _check(posts: list[dict[str, Any]], authors: set[str], categories: set[str], images: set[str]) -> None:
    seen: set[str] = set()
    for post in posts:
        where = f"sample site, post {post['slug']!r}"
        if post["slug"] in seen:
            raise DevclusterError(f"{where}: a second post has the same slug")
        seen.add(post["slug"])
        if post["author"] not in authors:
            raise DevclusterError(f"{where}: author {post['author']!r} is not in site.yaml")
        unknown = set(post["categories"]) - categories
        if unknown:
            raise DevclusterError(f"{where}: category {sorted(unknown)[0]!r} is not in site.yaml")
        featured = [post["featured_image"]] if post["featured_image"] else []
        absent = {*post["mentioned_images"], *featured} - images
        if absent:
            raise DevclusterError(f"{where}: image {sorted(absent)[0]!r} is not in the media folder")


def _mysql_date(value: object, path: Path) -> str:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        in_utc = value.astimezone(UTC) if value.tzinfo else value
        return in_utc.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, date):
        return value.strftime("%Y-%m-%d 00:00:00")
    raise DevclusterError(f"{path}: date {value!r} is not an ISO date")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
