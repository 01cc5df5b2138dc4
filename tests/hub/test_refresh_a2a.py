"""An A2A agent that is looked at again is called by what its card says now, within its origin."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from interhub.adapters import Outcome, Principal, RemoteRefused
from interhub.adapters.a2a import A2aAdapter
from interhub.adapters.pool import ConnectionPool
from interhub.adapters.testing import said
from interhub.agent_cards import Binding, Endpoint
from interhub.hub.audit import MemoryAuditLog
from interhub.hub.discovery import FromEndpoint, FromUrl
from interhub.hub.service import Hub
from tests.support.face_site import free_socket, serving
from tests.support.hub_twin import hub_over
from tests.support.supervisor_twin import supervisor_twin

pytestmark = pytest.mark.anyio

ANN = Principal(subject="ann")
Shape = dict[str, Any]


@dataclass
class Changing:
    """An agent whose card a test changes."""

    url: str = ""
    card: Shape = field(default_factory=dict[str, Any])
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list[tuple[str, str, Mapping[str, str]]])
    """Path, method and headers of each request."""
    slow: anyio.Event = field(default_factory=anyio.Event)
    """Set to let those go on that asked at `/slow`."""

    def is_at(self, *interfaces: tuple[str, str, str], **more: object) -> None:
        """Say that its interfaces are these: path or URL, binding, version."""
        named = [
            {
                "url": where if "://" in where else f"{self.url}{where}",
                "protocolBinding": binding,
                "protocolVersion": version,
            }
            for where, binding, version in interfaces
        ]
        skill = {"id": "greet", "name": "greet", "description": "greets", "tags": ["x"]}
        self.card = {
            "name": "changing",
            "description": "It changes.",
            "version": "1",
            "supportedInterfaces": named,
            "capabilities": {},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [skill],
            **more,
        }

    async def answer(self, request: Request) -> Response:
        """Answer with its card, or as the version does that the card names for this path."""
        if request.method == "GET":
            return JSONResponse(self.card)
        shaped: Shape = json.loads(await request.body())
        path, method = request.url.path, shaped.get("method", "HTTP+JSON")
        self.asked.append((path, method, dict(request.headers)))
        if path == "/slow":
            await self.slow.wait()
        if path.endswith(":send"):
            return JSONResponse({"message": message()})
        versions = [
            each["protocolVersion"]
            for each in self.card["supportedInterfaces"]
            if each["url"] == f"{self.url}{path}" or path == "/slow"
        ]
        spoken = {"SendMessage": "1.0", "message/send": "0.3"}[method]
        if spoken not in versions:
            error = {"code": -32009, "message": "version not supported"}
            return JSONResponse({"jsonrpc": "2.0", "id": shaped["id"], "error": error})
        result = {"message": message()} if spoken == "1.0" else {**message(), "kind": "message", "role": "agent"}
        return JSONResponse({"jsonrpc": "2.0", "id": shaped["id"], "result": result})


def message() -> Shape:
    return {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "hello", "kind": "text"}]}


@asynccontextmanager
async def hub_and_agent() -> AsyncGenerator[tuple[Hub, Changing]]:
    """A hub, and the agent on a socket."""
    agent = Changing()
    app = Starlette(routes=[Route("/{path:path}", agent.answer, methods=["GET", "POST"])])
    async with AsyncExitStack() as stack:
        agent.url = await stack.enter_async_context(serving(app, free_socket()))
        twin = await stack.enter_async_context(supervisor_twin())
        pool = await stack.enter_async_context(ConnectionPool(close_s=0.1))
        adapters = {"a2a": A2aAdapter(env={"KEY": "secret"})}
        yield hub_over(adapters, pool, twin, MemoryAuditLog()), agent


async def greet(hub: Hub) -> Outcome:
    with anyio.fail_after(5):
        return await hub.call(ANN, "changing", "greet", arguments={"message": "hi"})


async def added(hub: Hub, agent: Changing) -> None:
    await hub.add_agent(ANN, FromUrl(url=agent.url, headers={"X-Key": "${KEY}"}, protocol="a2a"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("/rpc", "JSONRPC", "0.3"), ("/rpc", "JSONRPC", "1.0")),
        (("/rpc", "JSONRPC", "1.0"), ("/v1/rpc", "JSONRPC", "1.0")),
        (("/rpc", "JSONRPC", "1.0"), ("/rest", "HTTP+JSON", "1.0")),
    ],
)
async def test_an_agent_that_moved_within_its_origin_is_called_where_it_is(
    before: tuple[str, str, str], after: tuple[str, str, str]
) -> None:
    async with hub_and_agent() as (hub, agent):
        agent.is_at(before)
        await added(hub, agent)
        assert said(await greet(hub)) == "hello"
        agent.is_at(after)
        agent.asked.clear()
        refreshed = await hub.refresh_agent(ANN, "changing")
        assert said(await greet(hub)) == "hello"
    assert (refreshed.endpoint.url, refreshed.endpoint.version) == (f"{agent.url}{after[0]}", after[2])
    ((path, _, headers),) = agent.asked
    assert path.startswith(after[0])
    assert headers["x-key"] == "secret"


async def test_an_agent_whose_card_names_another_host_stays_where_it_was() -> None:
    async with hub_and_agent() as (hub, agent):
        agent.is_at(("/rpc", "JSONRPC", "1.0"))
        await added(hub, agent)
        known = await hub.agent(ANN, "changing")
        agent.is_at(("http://127.0.0.1:9/rpc", "JSONRPC", "1.0"))
        refreshed = await hub.refresh_agent(ANN, "changing")
    assert refreshed.endpoint == known.endpoint
    assert refreshed.digest != known.digest


async def test_what_the_operator_wrote_of_an_agent_stays_as_it_was_written() -> None:
    async with hub_and_agent() as (hub, agent):
        agent.is_at(("/rpc", "JSONRPC", "1.0"), ("/rest", "HTTP+JSON", "1.0"))
        endpoint = Endpoint(binding=Binding.A2A_REST, url=f"{agent.url}/rest")
        await hub.add_agent(ANN, FromEndpoint(adapter="a2a", endpoint=endpoint))
        agent.is_at(("/rpc", "JSONRPC", "1.0"))
        assert (await hub.refresh_agent(ANN, "changing")).endpoint == endpoint


async def test_an_open_connection_goes_by_what_the_card_asks_now() -> None:
    where = ("/rpc", "JSONRPC", "1.0")
    required = {"extensions": [{"uri": "https://example.com/ext", "required": True}]}
    async with hub_and_agent() as (hub, agent):
        agent.is_at(where, capabilities=required)
        await added(hub, agent)
        with pytest.raises(RemoteRefused, match="requires the extension"):
            await greet(hub)
        agent.is_at(where)
        await hub.refresh_agent(ANN, "changing")
        assert said(await greet(hub)) == "hello"
        agent.is_at(where, capabilities=required)
        await hub.refresh_agent(ANN, "changing")
        with pytest.raises(RemoteRefused, match="requires the extension"):
            await greet(hub)


async def test_a_call_under_way_goes_on_when_the_card_changes() -> None:
    answers: list[str] = []

    async def slowly() -> None:
        answers.append(said(await greet(hub)))

    async with hub_and_agent() as (hub, agent), anyio.create_task_group() as tasks:
        agent.is_at(("/slow", "JSONRPC", "1.0"))
        await added(hub, agent)
        tasks.start_soon(slowly)
        with anyio.fail_after(5):
            while not agent.asked:  # noqa: ASYNC110  # a socket tells nobody
                await anyio.sleep(0.01)
        agent.is_at(("/rpc", "JSONRPC", "1.0"))
        await hub.refresh_agent(ANN, "changing")
        assert said(await greet(hub)) == "hello"
        assert not answers
        agent.slow.set()
    assert answers == ["hello"]
