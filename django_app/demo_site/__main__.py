"""`python -m demo_site`: the chat in one process, which is where its queue counts.

Listens on FINETUNE_HTTP_HOST and FINETUNE_HTTP_PORT unless --host and --port say otherwise.
"""

from __future__ import annotations

import argparse
import os

import uvicorn


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(prog="demo_site", description=__doc__)
    parser.add_argument(
        "--host", default=os.environ.get("FINETUNE_HTTP_HOST", "127.0.0.1"), help="listen here"
    )
    parser.add_argument(
        "--port", type=int, default=os.environ.get("FINETUNE_HTTP_PORT", "8000"), help="and on this port"
    )
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
