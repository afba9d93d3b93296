"""/livez, /readyz and /metrics over HTTP. Must not know what the numbers mean."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

Check = Callable[[], str]
"""Empty when all is well, else what is wrong."""


async def serve(
    port: int, live: Check, ready: Check, metrics: Callable[[], bytes], metrics_type: str
) -> web.AppRunner:
    """Start answering; the caller cleans the runner up.

    Args:
        metrics_type: content type of what `metrics` gives.
    """

    async def answer(check: Check) -> web.Response:
        problem = check()
        return web.Response(status=503 if problem else 200, text=(problem or "ok") + "\n")

    async def livez(_: web.Request) -> web.Response:
        return await answer(live)

    async def readyz(_: web.Request) -> web.Response:
        return await answer(ready)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": metrics_type})

    application = web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", show_metrics)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
