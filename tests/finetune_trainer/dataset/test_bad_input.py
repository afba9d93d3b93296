"""What a site can do wrong after a good run: an error of its class with place and remedy, and nothing stored is harmed.

Here the knowledge base is a list in memory; against real servers: tests/together/test_dataset.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from werkzeug import Request, Response

from finetune_contract.stage_protocol import ExitCode
from finetune_trainer.dataset import build as module
from finetune_trainer.dataset.sources import wordpress as wordpress_source
from finetune_trainer.dataset.sources.wordpress_http import Timing
from finetune_trainer.errors import TrainerError
from tests.finetune_trainer.dataset.test_build import TOPICS, Shelf, build, context


def texts(answer: Response) -> Callable[[Request], Response | None]:
    """The site answers so when it is asked for texts, midway through the run."""
    return lambda request: answer if "include=" in request.full_path and "/posts" in request.path else None


HTML = Response("<html>sign in</html>", 200, mimetype="text/html")
CUT_OFF = Response('[{"id": 1', 200, mimetype="application/json")
BUSY = Response("slow down", 429, headers={"Retry-After": "2"})
GATEWAY = Response("bad gateway", 502)
URL = "spec.dataset.sources[site].wordpress"


@pytest.mark.parametrize(
    ("answer", "settings", "exit_code", "place", "remedy"),
    [
        (texts(HTML), {}, ExitCode.SOURCE_REJECTED, URL, "let the REST API pass"),
        (texts(CUT_OFF), {}, ExitCode.SOURCE_UNAVAILABLE, URL, "check the address"),
        (texts(BUSY), {}, ExitCode.SOURCE_UNAVAILABLE, URL, "check the address"),
        (texts(GATEWAY), {}, ExitCode.SOURCE_UNAVAILABLE, URL, "check the address"),
        (None, {}, ExitCode.DATA_REJECTED, "spec.dataset.minDocuments", "lower minDocuments"),
        (
            lambda _: None,
            {"minExamples": 5000},
            ExitCode.DATA_REJECTED,
            "spec.dataset.minExamples",
            "add sources",
        ),
    ],
    ids=["HTML", "cut-off JSON", "429", "502", "an empty site", "too few rows"],
)
def test_bad_input_is_told_and_leaves_store_and_knowledge_base_as_they_were(
    wordpress: Any,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[Request], Response | None] | None,
    settings: dict[str, int],
    exit_code: ExitCode,
    place: str,
    remedy: str,
) -> None:
    for number, topic in enumerate(TOPICS, start=1):
        wordpress.add(
            number,
            f"All about the {topic}",
            f"<h2>How much is the {topic}?</h2><p>The {topic} was bought for £{number}50 by the trust.</p>",
        )
    shelf = Shelf()
    monkeypatch.setattr(module, "_knowledge_base", lambda _: shelf)
    monkeypatch.setattr(wordpress_source, "Timing", lambda: Timing(lambda seconds: None, lambda: 0.0))
    given = context(wordpress, tmp_path)
    build(given)
    stored = {key: given.store.read(key) for key in given.store.list("datasets")}
    held = list(shelf.held)
    wordpress.edit(3, "<h2>How old is it?</h2><p>It was built in 1788.</p>")
    if answer is None:
        wordpress.posts.clear()
    else:
        wordpress.before = answer

    with pytest.raises(TrainerError) as caught:
        build(context(wordpress, tmp_path, **settings))

    assert caught.value.exit_code is exit_code
    assert place in str(caught.value)
    assert remedy in str(caught.value)
    assert {key: given.store.read(key) for key in given.store.list("datasets")} == stored
    assert shelf.held == held
