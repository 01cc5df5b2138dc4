"""Ends event streams when the hub stops, so that a client that listens for ever does not hold the process up."""

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Drain:
    """Wraps the application; from `begin` on, open event streams end as if they had come to their end.

    Their clients read on elsewhere or later: what they show is kept in the journal, and a subscription is made again.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._streams: set[anyio.CancelScope] = set()
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
        ended = False

        async def watched(message: Message) -> None:
            nonlocal ended
            await send(message)
            if message["type"] == "http.response.start":
                if _is_stream(message):
                    self._streams.add(stream)
                    if self._ending:
                        stream.cancel()
            elif not message.get("more_body", False):
                ended = True

        with anyio.CancelScope() as stream:
            try:
                await self._app(scope, receive, watched)
            finally:
                self._streams.discard(stream)
        if stream.cancelled_caught and not ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _is_stream(message: Message) -> bool:
    headers: list[tuple[bytes, bytes]] = message.get("headers", [])
    return any(name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
