"""The MCP adapter with a server that has one of everything: what is read, sent, asked, cancelled and mended."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import mcp_types as t
import pytest
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.runner import serve_loop
from mcp.server.sse import SseServerTransport
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from interhub.adapters import (
    Call,
    Completed,
    Connection,
    DataPart,
    InputRequired,
    LogLine,
    Outcome,
    Principal,
    Progress,
    RawPart,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
    Resume,
    TextPart,
    Update,
    UrlPart,
    text_of,
)
from interhub.adapters.mcp import McpAdapter
from interhub.agent_cards import AgentCard, Binding, Endpoint, Json, JsonObject, Kind
from tests.support.mcp_servers import EVERYTHING, at, over_http, program, serving

pytestmark = pytest.mark.anyio

LEGS = ["stdio-modern", "stdio-legacy", "http-modern", "http-legacy"]


@dataclass
class Session:
    """A connection to the everything server, and what was reported on it."""

    connection: Connection
    card: AgentCard
    changes: list[tuple[str, str]]
    updates: list[Update] = field(default_factory=list[Update])
    heard: anyio.Event = field(default_factory=anyio.Event)

    async def report(self, update: Update) -> None:
        self.updates.append(update)
        self.heard.set()

    async def call(
        self,
        name: str,
        arguments: JsonObject | None = None,
        *,
        kind: Kind = Kind.TOOL,
        resume: Resume | None = None,
        timeout_s: float | None = None,
    ) -> Outcome:
        call = Call(
            capability=name,
            kind=kind,
            arguments=arguments or {},
            principal=Principal(subject="ada"),
            idempotency_key=f"run-1/{name}",
            resume=resume,
            timeout_s=timeout_s,
            trace={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"},
            meta={"example.com/kept": 1, "io.modelcontextprotocol/clientInfo": {"name": "somebody"}},
        )
        with anyio.fail_after(30):
            return await self.connection.call(call, self.report)

    async def completed(self, name: str, arguments: JsonObject | None = None, *, kind: Kind = Kind.TOOL) -> Completed:
        outcome = await self.call(name, arguments, kind=kind)
        assert isinstance(outcome, Completed)
        return outcome


@asynccontextmanager
async def endpoint_of(leg: str) -> AsyncGenerator[Endpoint]:
    transport, era = leg.split("-")
    version = "2025-11-25" if era == "legacy" else ""
    if transport == "stdio":
        yield program(EVERYTHING, version=version)
    else:
        async with over_http(EVERYTHING) as url:
            yield at(url, version=version)


@asynccontextmanager
async def connected(endpoint: Endpoint) -> AsyncGenerator[Session]:
    changes: list[tuple[str, str]] = []
    adapter = McpAdapter(on_changed=lambda label, method: changes.append((label, method)), startup_timeout_s=20)
    card = await adapter.describe(endpoint)
    async with adapter.connect(endpoint, card=card, label="everything") as connection:
        yield Session(connection, card, changes)


@pytest.mark.parametrize("leg", LEGS)
async def test_one_connection_carries_tools_prompts_resources_progress_logs_and_cancellation(leg: str) -> None:
    async with endpoint_of(leg) as endpoint, connected(endpoint) as session:
        # what it says of itself
        card = session.card
        assert (card.name, card.version, card.interfaces) == ("everything", "1.0", (endpoint,))
        assert "Everything an MCP server can do" in card.instructions
        kinds = {capability.kind for capability in card.capabilities}
        assert kinds == {Kind.TOOL, Kind.PROMPT, Kind.RESOURCE, Kind.RESOURCE_TEMPLATE}
        header = card.capability("test_x_mcp_header")
        assert header is not None
        assert cast("dict[str, dict[str, JsonObject]]", header.raw["inputSchema"])["properties"]["region"] == {
            "type": "string",
            "x-mcp-header": "Region",
        }

        # results
        outcome = await session.completed("add", {"a": 1, "b": 2})
        assert (outcome.parts, outcome.structured) == ((TextPart(text="3"),), {"sum": 3})
        assert outcome.raw is not None
        assert outcome.raw["structuredContent"] == {"sum": 3}
        mixed = (await session.completed("test_multiple_content_types")).parts
        assert isinstance(mixed[1], RawPart)
        assert mixed[1].raw.startswith(b"\x89PNG")
        assert isinstance(mixed[2], TextPart)
        assert mixed[2].metadata["uri"] == "test://mixed-content-resource"
        linked = (await session.completed("link")).parts[0]
        assert linked == UrlPart(url="test://static-text", media_type="text/plain", filename="static-text")
        prompt = await session.completed("test_prompt_with_arguments", {"arg1": "x", "arg2": "y"}, kind=Kind.PROMPT)
        assert "arg1='x', arg2='y'" in text_of(prompt.parts)
        binary = (await session.completed("test://static-binary", kind=Kind.RESOURCE)).parts[0]
        assert isinstance(binary, RawPart)
        template = await session.completed("test://template/{id}/data", {"id": "a b"}, kind=Kind.RESOURCE_TEMPLATE)
        assert '"id": "a%20b"' in text_of(template.parts)

        # while it lasts
        await session.completed("test_tool_with_progress")
        assert session.updates == [
            Progress(text=f"Completed step {done} of 100", done=done, total=100) for done in (0, 50, 100)
        ]
        session.updates.clear()
        await session.completed("test_tool_with_logging")
        lines = [update.text for update in session.updates if isinstance(update, LogLine)]
        assert lines == ["Tool execution started", "Tool processing data", "Tool execution completed"]

        # what went along
        seen = cast("dict[str, dict[str, Json]]", (await session.completed("reflect", {"x": 1})).structured)
        assert seen["meta"]["interhub/idempotencyKey"] == "run-1/reflect"
        assert seen["meta"]["traceparent"] == f"00-{'a' * 32}-{'b' * 16}-01"
        assert seen["meta"]["example.com/kept"] == 1
        assert seen["meta"].get("io.modelcontextprotocol/clientInfo") != {"name": "somebody"}
        assert not {"authorization", "cookie"} & seen["headers"].keys()

        # cancelled, and timed out
        session.heard = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.call, "slow", {"seconds": 60})
            with anyio.fail_after(10):
                await session.heard.wait()
            tasks.cancel_scope.cancel()
        with pytest.raises(RemoteTimeout, match=r"0\.3 s"):
            await session.call("slow", {"seconds": 60}, timeout_s=0.3)
        assert (await session.completed("count_cancelled")).structured == {"cancelled": 2}


@pytest.mark.parametrize("leg", LEGS)
async def test_a_server_that_asks_twice_is_answered_and_goes_on(leg: str) -> None:
    async with endpoint_of(leg) as endpoint, connected(endpoint) as session:
        first = await session.call("order")
        assert isinstance(first, InputRequired)
        assert (text_of(first.question), first.auth) == ("What is it to be?", False)
        assert first.schema is not None
        assert first.schema["required"] == ["name"]
        answer = Resume(answer=(DataPart(data={"name": "tea"}),), state=first.state)
        second = await session.call("order", resume=answer)
        assert isinstance(second, InputRequired)
        assert text_of(second.question) == "Are you sure?"
        last = await session.call("order", resume=Resume(answer=(TextPart(text="yes"),), state=second.state))
        assert isinstance(last, Completed)
        assert text_of(last.parts) == "ordered tea"


@pytest.mark.parametrize("leg", ["stdio-legacy", "http-modern"])
async def test_a_declined_question_is_told_to_the_server(leg: str) -> None:
    async with endpoint_of(leg) as endpoint, connected(endpoint) as session:
        asked = await session.call("order")
        assert isinstance(asked, InputRequired)
        outcome = await session.call("order", resume=Resume(answer=(), state=asked.state, accepted=False))
        if isinstance(outcome, InputRequired):  # 2026-07-28: the tool asks on; it is told no again
            outcome = await session.call("order", resume=Resume(answer=(), state=outcome.state, accepted=False))
        assert isinstance(outcome, Completed)
        assert text_of(outcome.parts) == "ordered nothing"


async def test_a_question_whose_process_is_gone_is_answered_by_running_the_call_again() -> None:
    endpoint = program(EVERYTHING, version="2025-11-25")
    async with connected(endpoint) as session:
        first = await session.call("order")
        assert isinstance(first, InputRequired)
        second = await session.call("order", resume=Resume(answer=(TextPart(text="tea"),), state=first.state))
        assert isinstance(second, InputRequired)
    async with connected(endpoint) as session:
        last = await session.call("order", resume=Resume(answer=(TextPart(text="yes"),), state=second.state))
        assert isinstance(last, Completed)
        assert text_of(last.parts) == "ordered tea"


async def test_nobody_else_can_answer_a_question() -> None:
    async with connected(program(EVERYTHING, version="2025-11-25")) as session:
        asked = await session.call("test_elicitation", {"message": "Who are you?"})
        assert isinstance(asked, InputRequired)
        stolen = Call(
            capability="test_elicitation",
            kind=Kind.TOOL,
            arguments={"message": "Somebody else's question"},
            principal=Principal(subject="eve"),
            idempotency_key="k",
            resume=Resume(answer=(TextPart(text="eve"),), state=asked.state),
        )
        outcome = await session.connection.call(stolen, session.report)
        assert isinstance(outcome, InputRequired)  # eve's own call began anew, and asks her
        assert text_of(outcome.question) == "Somebody else's question"
        resume = Resume(answer=(TextPart(text="ada"),), state=asked.state)
        mine = await session.call("test_elicitation", {"message": "Who are you?"}, resume=resume)
        assert isinstance(mine, Completed)
        assert "ada" in text_of(mine.parts)


async def test_a_question_that_may_be_of_another_principals_call_reaches_nobody() -> None:
    async with connected(program(EVERYTHING, version="2025-11-25")) as session, anyio.create_task_group() as tasks:
        eves = Call(
            capability="slow",
            kind=Kind.TOOL,
            arguments={"seconds": 60},
            principal=Principal(subject="eve"),
            idempotency_key="k",
        )
        tasks.start_soon(session.connection.call, eves, session.report)
        with anyio.fail_after(10):
            await session.heard.wait()
        outcome = await session.completed("test_elicitation", {"message": "Who are you?"})
        assert "not supported" in text_of(outcome.parts)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("leg", ["stdio-legacy", "stdio-modern"])
async def test_a_server_that_wants_a_model_is_told_that_there_is_none(leg: str) -> None:
    async with endpoint_of(leg) as endpoint, connected(endpoint) as session:
        if leg == "stdio-legacy":
            outcome = await session.completed("test_sampling", {"prompt": "?"})
            assert "not offered" in text_of(outcome.parts)
        else:
            with pytest.raises(RemoteRefused, match="sampling/createMessage"):
                await session.call("test_input_required_result_sampling")


async def test_arguments_are_checked_before_they_are_sent_and_the_error_names_the_place() -> None:
    async with connected(program(EVERYTHING)) as session:
        with pytest.raises(
            RemoteRefused, match=r"add does not take these arguments: b: 'two' is not of type 'integer'"
        ):
            await session.call("add", {"a": 1, "b": "two"})
        with pytest.raises(RemoteRefused, match="'b' is a required property"):
            await session.call("add", {"a": 1})
        with pytest.raises(RemoteRefused, match="unknown tool 'nothing'") as refused:
            await session.call("nothing")
        assert refused.value.code == -32602
        with pytest.raises(RemoteRefused, match="intentionally returns an error") as failed:
            await session.call("test_error_handling")
        assert text_of(failed.value.parts) == "This tool intentionally returns an error for testing"
        with pytest.raises(RemoteRefused, match="no skills"):
            await session.call("add", kind=Kind.SKILL)


@pytest.mark.parametrize("leg", LEGS)
async def test_a_change_of_the_servers_lists_is_passed_on(leg: str) -> None:
    async with endpoint_of(leg) as endpoint:
        adapter_told = anyio.Event()
        adapter = McpAdapter(on_changed=lambda label, method: adapter_told.set() if label == "everything" else None)
        card = await adapter.describe(endpoint)
        async with adapter.connect(endpoint, card=card, label="everything") as connection:
            session = Session(connection, card, [])
            with anyio.fail_after(20):
                while not adapter_told.is_set():
                    await session.completed("test_trigger_tool_change")  # until the subscription is in place


async def test_a_crash_in_a_call_says_why_and_the_next_call_finds_a_new_process() -> None:
    async with connected(program(EVERYTHING)) as session:
        with pytest.raises(RemoteUnavailable, match=r"(?s)exited with status 3.*crashing as I was told"):
            await session.call("crash")
        assert (await session.completed("add", {"a": 1, "b": 2})).structured == {"sum": 3}


@pytest.mark.parametrize("version", ["", "2025-11-25"])
async def test_a_server_that_was_restarted_is_found_again(version: str) -> None:
    async with over_http(EVERYTHING) as url:
        adapter = McpAdapter()
        endpoint = at(url, version=version)
        card = await adapter.describe(endpoint)
        opened = adapter.connect(endpoint, card=card, label="everything")
        connection = await opened.__aenter__()
        session = Session(connection, card, [])
        await session.completed("add", {"a": 1, "b": 2})
    try:
        with pytest.raises(RemoteUnavailable, match=r"nothing answers at 127\.0\.0\.1"):
            await session.call("add", {"a": 1, "b": 2})
        async with over_http(EVERYTHING, port=int(url.split(":")[2].split("/")[0])):
            outcome = await session.completed("add", {"a": 2, "b": 2})
            assert outcome.structured == {"sum": 4}
    finally:
        await opened.__aexit__(None, None, None)


async def test_a_call_that_fails_on_the_way_does_not_touch_its_neighbours() -> None:
    async with over_http(EVERYTHING) as url, connected(at(url)) as session:
        results: list[Outcome] = []

        async def wait() -> None:
            results.append(await session.call("slow", {"seconds": 0.5}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            for _ in range(3):
                with pytest.raises(RemoteRefused):
                    await session.call("nothing")
        assert isinstance(results[0], Completed)


async def test_a_list_of_many_pages_is_read_to_its_end() -> None:
    card = await McpAdapter().describe(program(EVERYTHING, "--page-size", "3"))
    assert sum(capability.kind is Kind.TOOL for capability in card.capabilities) > 30


async def test_the_older_http_with_sse_is_spoken_too() -> None:
    server: Server[dict[str, Any]] = Server("old", on_list_tools=no_tools)
    streams = SseServerTransport("/messages/")

    async def events(scope: Scope, receive: Receive, send: Send) -> None:
        async with streams.connect_sse(scope, receive, send) as (read, write):
            await serve_loop(server, read, write, lifespan_state={})

    routes = [Route("/sse", Events(events)), Mount("/messages/", streams.handle_post_message)]
    async with serving(Starlette(routes=routes)) as address:
        endpoint = Endpoint(binding=Binding.MCP_SSE, url=f"{address}/sse", version="2025-11-25")
        card = await McpAdapter(startup_timeout_s=10).describe(endpoint)
        assert card.name == "old"


class Events:
    """An ASGI application that Starlette takes for one, and not for a function of requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def no_tools(
    ctx: ServerRequestContext[dict[str, Any], Any], params: t.PaginatedRequestParams | None
) -> t.ListToolsResult:
    return t.ListToolsResult(tools=[], ttl_ms=0, cache_scope="private")
