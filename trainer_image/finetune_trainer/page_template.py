"""How the HTML templates of the reports are read: all escape, and none passes over a missing name. Knows no report."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template


def page_template(package: str, name: str, filters: dict[str, Callable[..., str]]) -> Template:
    """The template `name` in the folder of `package`; `filters` are what it writes its numbers with."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters)
    return environment.from_string(files(package).joinpath(name).read_text(encoding="utf-8"))
