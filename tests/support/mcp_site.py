"""A hub with its MCP face over a socket, over a supervisor twin and scripted agents."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import mcp_types as types
from mcp import Client
from starlette.types import ASGIApp, Receive, Scope, Send

from interhub.adapters import Principal
from interhub.adapters.pool import ConnectionPool
from interhub.adapters.testing import ScriptedAdapter, ScriptedAgent
from interhub.agent_cards import Binding, Endpoint
from interhub.hub.audit import MemoryAuditLog
from interhub.hub.discovery import FromEndpoint
from interhub.hub.faces.mcp import McpFace, mcp_face
from interhub.hub.faces.mcp.profiles import CatalogueMode, Profile, Profiles
from interhub.hub.service import Hub
from tests.support.hub_twin import hub_over

from .face_site import free_socket, serving
from .supervisor_twin import SupervisorTwin, supervisor_twin

OWN = ["delegate", "run_status", "run_result", "run_cancel", "answer", "find", "call"]
STATE_KEY = b"a key of the tests, thirty-two bytes"

Elicit = Callable[..., Awaitable[types.ElicitResult]]


@dataclass(frozen=True, kw_only=True)
class McpSite:
    """The hub and how it is asked."""

    hub: Hub
    face: McpFace
    supervisor: SupervisorTwin
    url: str


@asynccontextmanager
async def mcp_site(
    *agents: ScriptedAgent,
    catalogue: CatalogueMode = "auto",
    profiles: Profiles | None = None,
    page_size: int = 1000,
    delegate_wait_s: float = 5.0,
    state_key: bytes = STATE_KEY,
) -> AsyncGenerator[McpSite]:
    """Serve a hub that knows these agents. Callers name themselves: `Authorization: Bearer NAME[@TENANT]`."""
    adapters = {"scripted": ScriptedAdapter(*agents)}
    async with AsyncExitStack() as stack:
        twin = await stack.enter_async_context(supervisor_twin())
        pool = await stack.enter_async_context(ConnectionPool())
        audit = MemoryAuditLog()
        hub = hub_over(adapters, pool, twin, audit)
        for agent in agents:
            await add(hub, agent)
        face = mcp_face(
            hub,
            state_key=state_key,
            profiles=profiles or Profiles(whole=Profile(mode=catalogue)),
            page_size=page_size,
            delegate_wait_s=delegate_wait_s,
        )
        await stack.enter_async_context(face.lifespan())
        url = await stack.enter_async_context(serving(named(face), free_socket()))
        yield McpSite(hub=hub, face=face, supervisor=twin, url=f"{url}/mcp")


async def add(hub: Hub, agent: ScriptedAgent, *, tenant: str = "default") -> None:
    """Register a scripted agent."""
    endpoint = Endpoint(binding=Binding.LOCAL, url=f"scripted:{agent.name}")
    await hub.add_agent(Principal(subject="admin", tenant=tenant), FromEndpoint(adapter="scripted", endpoint=endpoint))


def named(app: ASGIApp) -> ASGIApp:
    """Believe what callers say of themselves, in the place of the outer layer."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        header = dict(scope["headers"]).get(b"authorization", b"Bearer ann").decode()
        subject, _, tenant = header.removeprefix("Bearer ").partition("@")
        principal = Principal(subject=subject, tenant=tenant or "default")
        await app({**scope, "state": {"principal": principal}}, receive, send)

    return front


@dataclass
class Person:
    """Somebody at a client: answers every form with the same fields, and hears how far things are."""

    answers: dict[str, str | int | float | bool | list[str] | None] | None = None
    action: str = "accept"
    asked: list[types.ElicitRequestParams] = field(default_factory=list[types.ElicitRequestParams])
    heard: list[str] = field(default_factory=list[str])
    numbers: list[float] = field(default_factory=list[float])

    async def elicit(self, context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        self.asked.append(params)
        if self.action == "accept":
            return types.ElicitResult(action="accept", content=self.answers)
        return types.ElicitResult(action="decline" if self.action == "decline" else "cancel")

    async def hear(self, progress: float, total: float | None, message: str | None) -> None:
        self.numbers.append(progress)
        self.heard.append(message or "")


def text(result: types.CallToolResult) -> str:
    """The words of a result."""
    return "\n".join(block.text for block in result.content if isinstance(block, types.TextContent))


def fields(result: types.CallToolResult) -> dict[str, Any]:
    """The structured content of a result that is an object."""
    content: object = result.structured_content
    assert isinstance(content, dict), result
    return cast("dict[str, Any]", content)


def client(target: object, mode: str, person: Person | None = None) -> Client:
    """Open the SDK's own client; without a person it cannot be asked anything."""
    return Client(target, mode=mode, elicitation_callback=person.elicit if person else None)  # type: ignore[arg-type]
