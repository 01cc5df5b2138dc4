"""Serves an ASGI application as the hub is served, with nothing that it adds."""

import asyncio
import socket

import uvicorn
from starlette.types import ASGIApp

from interhub.hub.corked import CorkedProtocol


def serve(app: ASGIApp, fd: int) -> None:
    """Serve on a listening socket until told to stop."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        ws="none",
        http=CorkedProtocol,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        # The socket itself, not uvicorn's `fd=`, which takes it for a Unix socket and leaves Nagle's algorithm on.
        runner.run(uvicorn.Server(config).serve(sockets=[socket.socket(fileno=fd)]))
