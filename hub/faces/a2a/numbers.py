"""Whole numbers as JSON has them: the SDK's protobuf types hold doubles only, and write 5 as `5.0`."""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NUMBER = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(-?\d+)\.0(?=[,\]}\s]|$)')
"""A text, which is passed over, or a whole number that is written as another.

Possessive: what could be gone back to is remembered for each character, which came to 118 times the text.
"""


def whole(body: bytes) -> bytes:
    """Return JSON, or an event stream's events of JSON, with whole numbers written without a fraction."""
    return _NUMBER.sub(lambda found: found[1] or found[0], body) if b".0" in body else body


class WholeNumbers:
    """An ASGI application around one that sends JSON, each piece of its bodies a whole document or event."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        began: Message | None = None

        async def mended(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = message  # held back: its length changes with the body
                return
            if message["type"] == "http.response.body" and (body := message.get("body", b"")):
                shorter = whole(body)
                if began is not None and not message.get("more_body") and len(shorter) != len(body):
                    length = str(len(shorter)).encode()
                    headers = [
                        (name, length if name == b"content-length" else value) for name, value in began["headers"]
                    ]
                    began = {**began, "headers": headers}
                message = {**message, "body": shorter}
            if began is not None:
                start, began = began, None
                await send(start)
            await send(message)

        await self._app(scope, receive, mended)
