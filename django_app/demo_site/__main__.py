"""`python -m demo_site [--host H] [--port P]`: the chat on one process, which is where its queue counts."""

from __future__ import annotations

import argparse

import uvicorn


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(prog="demo_site", description=__doc__)
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104 - a pod's own network
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    arguments = parser.parse_args()
    uvicorn.run(
        "demo_site.asgi:application",
        host=arguments.host,
        port=arguments.port,
        lifespan="off",
        server_header=False,
        access_log=False,
        timeout_graceful_shutdown=30,
    )


if __name__ == "__main__":
    main()
