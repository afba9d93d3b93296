"""A JSON line about a run bears the run as a field of its own."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest

from finetune_operator.observed import RunKey
from finetune_operator.operator_log import JsonLines, about

BLOG, SHOP = RunKey("demo", "blog"), RunKey("demo", "shop")
logger = logging.getLogger("tests.operator_log")


@pytest.fixture
def shown() -> Iterator[StringIO]:
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)


def lines(shown: StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in shown.getvalue().splitlines()]


def test_the_run_that_a_line_names_is_a_field(shown):
    logger.info("run moved: run=%s phase=%s", BLOG, "Training")

    (line,) = lines(shown)
    assert line["run"] == "demo/blog"
    assert line["message"] == "run moved: run=demo/blog phase=Training"


def test_a_line_that_names_no_run_has_the_one_that_is_looked_at(shown):
    with about(BLOG):
        logger.info("job deleted: job=%s/%s", "demo", "blog-1a2b3c4d-train-0")
    logger.info("working: namespaces=%s", "demo")

    assert [line.get("run") for line in lines(shown)] == ["demo/blog", None]


def test_the_run_that_is_named_wins_over_the_one_that_is_looked_at(shown):
    with about(BLOG):
        logger.info("run gone: run=%s", SHOP)

    assert lines(shown)[0]["run"] == "demo/shop"


async def test_runs_that_are_looked_at_side_by_side_are_not_mixed_up(shown):
    async def look(key: RunKey) -> None:
        with about(key):
            await asyncio.sleep(0)
            await asyncio.gather(part(key), part(key))

    async def part(key: RunKey) -> None:
        await asyncio.sleep(0)
        logger.info("log not readable: pod=%s/%s-0", key.namespace, key.name)

    await asyncio.gather(look(BLOG), look(SHOP))

    assert len(lines(shown)) == 4
    for line in lines(shown):
        assert f"pod={line['run']}-0" in line["message"]


def test_a_fault_is_told_in_one_line_with_its_run(shown):
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logger.exception("pass failed by a fault of the operator: run=%s", BLOG)

    (line,) = lines(shown)
    assert line["run"] == "demo/blog"
    assert "ZeroDivisionError" in line["exception"]
