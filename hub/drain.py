"""Ends event streams when the hub stops, so that a client that listens for ever does not hold the process up."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Drain:
    """Wraps the application; from `begin` on, open event streams end as if they had come to their end.

    Their clients read on elsewhere or later: what they show is kept in the journal, and a subscription is made again.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._streams: set[_Answer] = set()
        self._ending = False

    def end_streams(self) -> None:
        """End the streams that are open, and each that opens from now on."""
        self._ending = True
        for stream in tuple(self._streams):
            stream.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and see whether it is answered by a stream."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(self, send)
        try:
            await self._app(scope, receive, answer)
        except asyncio.CancelledError:
            if not answer.canceled:
                raise
            answer.task.uncancel()
        finally:
            self._streams.discard(answer)
        if answer.canceled and not answer.ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def opened(self, stream: "_Answer") -> None:
        """Take note of a stream."""
        self._streams.add(stream)
        if self._ending:
            stream.cancel()


class _Answer:
    """A `send` that notices when a stream begins.

    The request's task itself is cancelled, not a scope of anyio's around it: a scope for every request costs as much
    as a tenth of a proxied call, and hardly one is needed.
    """

    __slots__ = ("_drain", "_send", "canceled", "ended", "task")

    def __init__(self, drain: Drain, send: Send) -> None:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task is not None, "a request is served by a task"
        self.task = task
        self.canceled = False
        self.ended = False
        self._drain = drain
        self._send = send

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            return self._begin(message) if _is_stream(message) else self._send(message)
        if not message.get("more_body", False):
            self.ended = True
        return self._send(message)

    async def _begin(self, message: Message) -> None:
        await self._send(message)
        self._drain.opened(self)

    def cancel(self) -> None:
        if not self.canceled and not self.ended:
            self.canceled = True
            self.task.cancel("the hub is stopping")


def _is_stream(message: Message) -> bool:
    headers: list[tuple[bytes, bytes]] = message.get("headers", [])
    for name, value in headers:  # noqa: SIM110  # on the hot path, where a generator costs more
        if value.startswith(b"text/event-stream") and name.lower() == b"content-type":
            return True
    return False
