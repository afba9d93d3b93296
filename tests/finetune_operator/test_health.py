"""What probes and Prometheus get."""

from __future__ import annotations

import aiohttp

from finetune_operator import health


async def test_a_problem_is_told_with_status_503():
    problems = {"live": "", "ready": "the API server does not answer"}
    runner = await health.serve(
        0, lambda: problems["live"], lambda: problems["ready"], lambda: {"runs": 3.0, "passes_total": 1.5}
    )
    port = next(address[1] for address in runner.addresses if address[0] == "0.0.0.0")  # noqa: S104 - compared, not bound
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            answers = {}
            for path in ("/livez", "/readyz", "/metrics"):
                async with session.get(path) as response:
                    answers[path] = (response.status, await response.text())
    finally:
        await runner.cleanup()

    assert answers["/livez"] == (200, "ok\n")
    assert answers["/readyz"] == (503, "the API server does not answer\n")
    assert answers["/metrics"] == (
        200,
        "# TYPE runs gauge\nruns 3\n# TYPE passes_total counter\npasses_total 1.5\n",
    )
