"""A receiver of pushes on a port of loopback, which remembers what it was sent and can be told how to answer."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import orjson
from jwt import PyJWKSet
from jwt.api_jws import PyJWS
from jwt.utils import base64url_encode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .face_site import free_socket, serving


@dataclass(frozen=True, kw_only=True)
class Received:
    """One push."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return orjson.loads(self.body)

    @property
    def state(self) -> str:
        """The state that the push tells, in either version's words; empty where it tells none."""
        said = self.document
        told: Any = said.get("task") or said.get("statusUpdate") or (said if "kind" in said else {})
        return str(told.get("status", {}).get("state", ""))

    def verify(self, key_set: Mapping[str, Any]) -> dict[str, Any]:
        """Check the signature over the body, and return its protected header."""
        protected, _, signature = self.headers["x-interhub-signature"].split(".")
        token = f"{protected}.{base64url_encode(self.body).decode()}.{signature}"
        jws = PyJWS(algorithms=["ES256"])
        header: dict[str, Any] = jws.get_unverified_header(token)
        jws.decode(token, PyJWKSet.from_dict(dict(key_set))[header["kid"]].key, algorithms=["ES256"])
        return header


@dataclass
class Webhook:
    """What was received, and how to answer."""

    url: str
    received: list[Received] = field(default_factory=list[Received])
    answers: list[int] = field(default_factory=list[int])
    """Statuses of the next answers; then 204."""
    open: anyio.Event = field(default_factory=anyio.Event)
    """Nothing is answered before it is set."""
    came: anyio.Event = field(default_factory=anyio.Event)

    async def until(self, state: str) -> list[Received]:
        """Return all that was received up to one that tells a state."""
        with anyio.fail_after(30):
            while True:
                states = [each.state for each in self.received]
                if state in states:
                    return self.received[: states.index(state) + 1]
                await self.came.wait()

    async def count(self, number: int) -> list[Received]:
        """Return what was received, once there are so many."""
        with anyio.fail_after(30):
            while len(self.received) < number:
                await self.came.wait()
        return self.received[:number]


@asynccontextmanager
async def webhook(listener: Any = None, *, held: bool = False) -> AsyncGenerator[Webhook]:
    """Run a receiver; one that is `held` answers nothing until its `open` is set."""
    listener = listener or free_socket()
    host, port = listener.getsockname()
    hook = Webhook(f"http://{host}:{port}/hook")
    if not held:
        hook.open.set()

    async def take(request: Request) -> Response:
        hook.received.append(Received(path=request.url.path, headers=dict(request.headers), body=await request.body()))
        came, hook.came = hook.came, anyio.Event()
        came.set()
        await hook.open.wait()
        return Response(status_code=hook.answers.pop(0) if hook.answers else 204)

    app = Starlette(routes=[Route("/{path:path}", take, methods=["POST"])])
    async with serving(app, listener):
        yield hook
