"""The HTTP surface: one door, the REST face, and behind it the protocols' faces, which are imported after start-up.

The MCP and A2A SDKs take a second to import, of the three that a start may take. So the hub answers as soon as it can
carry out what REST asks; a request to `/mcp` or `/a2a` that comes in the first second waits for its face.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from typing import Protocol

import anyio
import structlog
from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from interhub.hub.wire import Answer, Going, Request

from .faces.http import Admitted, Entrance
from .faces.refusals import http_problem, refuse
from .late import IMPORTING

log = structlog.get_logger()

Faces = AbstractAsyncContextManager[ASGIApp]


class LateFaces:
    """An ASGI application that is made in the background; requests wait for it."""

    def __init__(self, load: Callable[[], Faces]) -> None:
        """`load` imports and makes it: called in a thread."""
        self._load = load
        self._app: ASGIApp | None = None
        self._settled = anyio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Make it, and serve it until the block is left."""
        leaving = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._own, leaving)
            try:
                yield
            finally:
                leaving.set()

    async def settled(self) -> None:
        """Return when it is there, or has failed to come up."""
        await self._settled.wait()

    def short(self, place: str, admitted: Admitted) -> Answer | Going | None:
        """Serve a request past ASGI, once there is what serves it, or leave it."""
        app = self._app
        return app.short(place, admitted) if isinstance(app, McpPlaces) else None

    async def _own(self, leaving: anyio.Event) -> None:
        # One task enters and leaves the faces' contexts: they hold task groups.
        try:
            faces = await to_thread.run_sync(self._import)
            async with faces as app:
                self._app = app
                self._settled.set()
                await leaving.wait()
        except Exception:  # a face that does not come up must not take the others with it; its requests get a 503
            log.exception("faces_failed")
        finally:
            self._app = None
            self._settled.set()

    def _import(self) -> Faces:
        with IMPORTING:
            return self._load()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve a request, once there is what serves it."""
        return self._app(scope, receive, send) if self._app is not None else self._later(scope, receive, send)

    async def _later(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._settled.wait()
        if self._app is None:
            raise HTTPException(503, "this face of the hub did not come up, or is stopping; the hub's log says why")
        await self._app(scope, receive, send)


class McpFirst:
    """Takes requests for the MCP endpoints straight to their faces: the routers on the way cost as much as a call."""

    def __init__(self, faces: ASGIApp, app: ASGIApp) -> None:
        """`faces` serves what `mcp_place` names, `app` all else."""
        self._faces = faces
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        place = mcp_place(scope["path"]) if scope["type"] == "http" else None
        if place is None:
            await self._app(scope, receive, send)
            return
        scope["path_params"] = {"agent_id": place} if place else {}
        try:
            await self._faces(scope, receive, send)
        except HTTPException as error:
            await refuse(scope, http_problem(error.status_code, error.detail))(scope, receive, send)


class ShortWays:
    """Serves requests for the MCP endpoints past ASGI, or leaves them (`wire.ShortWay`)."""

    def __init__(self, entrance: Entrance, faces: LateFaces) -> None:
        self._entrance = entrance
        self._faces = faces

    def __call__(self, request: Request) -> Answer | Going | None:
        """Serve a request."""
        place = mcp_place(request.path)
        if place is None:
            return None
        admitted = self._entrance.admit(request)
        return self._faces.short(place, admitted) if admitted is not None else None


class WholeFace(Protocol):
    """The MCP face of the hub (`faces.mcp.face.McpFace`)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        ...

    def short(self, admitted: Admitted) -> Answer | Going | None:
        """Serve a request past ASGI, or leave it."""
        ...


class SingleFace(Protocol):
    """The MCP face of single agents (`faces.mcp.agent.McpAgentFace`)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        ...

    def short(self, admitted: Admitted, agent_id: str) -> Answer | Going | None:
        """Serve a request past ASGI, or leave it."""
        ...


class McpPlaces:
    """Hands what `McpFirst` has placed to the face of the hub, or to that of single agents; all else to the routes."""

    def __init__(self, whole: WholeFace, single: SingleFace, routes: ASGIApp) -> None:
        self._whole = whole
        self._single = single
        self._routes = routes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve a request."""
        place = mcp_place(scope["path"])
        face = self._routes if place is None else self._single if place else self._whole
        return face(scope, receive, send)

    def short(self, place: str, admitted: Admitted) -> Answer | Going | None:
        """Serve a request past ASGI, or leave it."""
        return self._single.short(admitted, place) if place else self._whole.short(admitted)


@lru_cache(maxsize=4096)
def mcp_place(path: str) -> str | None:
    """Return whose MCP endpoint a path is: an agent's id, empty for the hub's own; None when it is none."""
    parts = path.split("/")
    if len(parts) > 2 and not parts[-1]:
        parts.pop()
    match parts:
        case ["", "mcp"]:
            return ""
        case ["", "agents", agent_id, "mcp"] if agent_id:
            return agent_id
        case _:
            return None


class Rest(BaseRoute):
    """Takes every path that no route before it took."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match every HTTP request."""
        return (Match.FULL, {}) if scope["type"] == "http" else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on."""
        await self._app(scope, receive, send)
