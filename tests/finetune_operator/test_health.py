"""What probes and Prometheus get."""

from __future__ import annotations

import aiohttp

from finetune_operator import health
from finetune_operator.metrics import CONTENT_TYPE
from tests.finetune_operator.full_metrics import full_metrics


async def test_a_problem_is_told_with_status_503():
    problems = {"live": "", "ready": "the API server does not answer"}
    runner = await health.serve(
        0,
        lambda: problems["live"],
        lambda: problems["ready"],
        full_metrics().text,
        CONTENT_TYPE,
    )
    port = next(address[1] for address in runner.addresses if address[0] == "0.0.0.0")  # noqa: S104 - compared, not bound
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            answers = {}
            for path in ("/livez", "/readyz", "/metrics"):
                async with session.get(path) as response:
                    answers[path] = (response.status, await response.text())
                    kind = response.headers["Content-Type"]
    finally:
        await runner.cleanup()

    assert answers["/livez"] == (200, "ok\n")
    assert answers["/readyz"] == (503, "the API server does not answer\n")
    assert answers["/metrics"][0] == 200
    assert kind == CONTENT_TYPE
    assert "finetune_operator_leader 1.0" in answers["/metrics"][1].splitlines()
