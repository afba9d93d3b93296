"""/livez, /readyz and /metrics over HTTP. Must not know what the numbers mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web

Check = Callable[[], str]
"""Empty when all is well, else what is wrong."""


async def serve(
    port: int, live: Check, ready: Check, metrics: Callable[[], Mapping[str, float]]
) -> web.AppRunner:
    """Start answering; the caller cleans the runner up."""

    async def answer(check: Check) -> web.Response:
        problem = check()
        return web.Response(status=503 if problem else 200, text=(problem or "ok") + "\n")

    async def livez(_: web.Request) -> web.Response:
        return await answer(live)

    async def readyz(_: web.Request) -> web.Response:
        return await answer(ready)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(text=exposition(metrics()), content_type="text/plain", charset="utf-8")

    application = web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", show_metrics)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner


def exposition(metrics: Mapping[str, float]) -> str:
    """Prometheus' text format; names ending in `_total` are counters."""
    lines: list[str] = []
    for name, value in metrics.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# TYPE {name} {kind}", f"{name} {value:g}"]
    return "\n".join(lines) + "\n"
