"""A hub with its A2A and REST faces, over a supervisor twin and scripted agents; asked in process, or over a socket."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import anyio
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from interhub.adapters import Completed, Principal, TextPart
from interhub.adapters.pool import ConnectionPool
from interhub.adapters.testing import ScriptedAdapter, ScriptedAgent
from interhub.agent_cards import Binding, Endpoint, Kind
from interhub.hub.audit import MemoryAuditLog
from interhub.hub.discovery import FromEndpoint
from interhub.hub.errors import Unauthenticated
from interhub.hub.faces.a2a import A2aFace
from interhub.hub.faces.http import Entrance, Perimeter
from interhub.hub.faces.refusals import exception_handlers
from interhub.hub.faces.rest import rest_routes
from interhub.hub.service import Hub
from interhub.hub.wire import ShortProtocol, ShortWay
from tests.support.hub_twin import hub_over

from .supervisor_twin import SupervisorTwin, supervisor_twin

ALICE = Principal(subject="alice")
BOB = Principal(subject="bob")
EVE = Principal(subject="eve", tenant="elsewhere")
KEYS = {"alice-key": ALICE, "bob-key": BOB, "eve-key": EVE}


class Keys:
    """Knows three callers."""

    def principal_of_header(self, authorization: str, api_key: str = "") -> Principal:
        scheme, _, key = authorization.partition(" ")
        principal = KEYS.get(key if scheme.lower() == "bearer" else api_key)
        if principal is None:
            raise Unauthenticated
        return principal


@dataclass(frozen=True, kw_only=True)
class Site:
    """The hub and how it is asked."""

    app: ASGIApp
    hub: Hub
    supervisor: SupervisorTwin
    a2a: A2aFace
    clerk: ScriptedAgent
    tools: ScriptedAgent
    client: httpx.AsyncClient
    """Alice's; in process, so that an answer comes when it is whole."""
    missing: dict[str, str] = field(default_factory=dict[str, str])
    """What `/readyz` says is not ready."""


@asynccontextmanager
async def face_site(
    *,
    base_url: str = "http://hub.test",
    perimeter: Perimeter | None = None,
    public_agents: bool = True,
    front_agent: str = "",
    more: Sequence[ScriptedAgent] = (),
) -> AsyncGenerator[Site]:
    """Open a hub with two agents: `clerk` (one skill) and `tools` (an MCP server's two tools)."""
    clerk = ScriptedAgent("clerk").on("file", Completed(parts=(TextPart(text="filed"),)), description="Files letters")
    tools = ScriptedAgent("tools")
    for name in ("add", "divide"):
        tools.on(name, Completed(structured={"result": 4}), kind=Kind.TOOL, description=f"{name} two numbers")
    adapters = {"scripted": ScriptedAdapter(clerk, tools, *more)}
    missing: dict[str, str] = {}

    async def readiness() -> Mapping[str, str]:
        return missing

    async with AsyncExitStack() as stack:
        twin = await stack.enter_async_context(supervisor_twin())
        pool = await stack.enter_async_context(ConnectionPool())
        audit = MemoryAuditLog()
        hub = hub_over(adapters, pool, twin, audit, base_url=base_url)
        for agent in (clerk, tools, *more):
            endpoint = Endpoint(binding=Binding.LOCAL, url=f"scripted:{agent.name}")
            await hub.add_agent(ALICE, FromEndpoint(adapter="scripted", endpoint=endpoint))
        a2a = A2aFace(hub, public_agents=public_agents, front_agent=front_agent)
        routes = [*a2a.routes(), *rest_routes(hub, readiness=readiness)]
        site = Starlette(routes=routes, exception_handlers=exception_handlers())
        app = Entrance(
            site,
            authenticator=Keys(),
            perimeter=perimeter or Perimeter(hosts=frozenset({"hub.test"}), max_body_bytes=1024 * 1024),
        )
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app, raise_app_exceptions=False),
                base_url="http://hub.test",
                headers={"Authorization": "Bearer alice-key"},
                timeout=10,
            )
        )
        yield Site(app=app, hub=hub, supervisor=twin, a2a=a2a, clerk=clerk, tools=tools, client=client, missing=missing)


def free_socket() -> socket.socket:
    """Return a socket bound to a free port of loopback."""
    # With the protocol named, asyncio sets TCP_NODELAY; without, every answer waits 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    return listener


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket, *, short_way: ShortWay | None = None) -> AsyncGenerator[str]:
    """Serve an application on a socket with uvicorn, with a short way before it as the hub has, and yield its URL."""
    config = uvicorn.Config(
        app, interface="asgi3", log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    if short_way is not None:
        config.http = cast("type[asyncio.Protocol]", partial(ShortProtocol, short_way=short_way))
    server = uvicorn.Server(config)
    host, port = listener.getsockname()
    async with anyio.create_task_group() as tasks:
        listener.listen()
        tasks.start_soon(server.serve, [listener])
        yield f"http://{host}:{port}"
        server.should_exit = True
