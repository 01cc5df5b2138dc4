from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from threading import Event

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from interhub.adapters.testing import ScriptedAdapter, ScriptedAgent
from interhub.agent_cards import Binding, Endpoint
from interhub.hub.drain import Drain
from interhub.hub.faces.refusals import exception_handlers
from interhub.hub.front import Faces, LateFaces, Rest
from interhub.hub.late import Late, LateAdapter

pytestmark = pytest.mark.anyio


async def _hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


def _client(faces: LateFaces) -> httpx.AsyncClient:
    app = Starlette(routes=[Rest(faces)], exception_handlers=exception_handlers())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub")


async def test_a_request_that_comes_too_early_waits_for_its_face() -> None:
    may_load = Event()

    @asynccontextmanager
    async def served() -> AsyncGenerator[ASGIApp]:
        yield _hello

    def load() -> Faces:
        may_load.wait(5)
        return served()

    faces = LateFaces(load)
    answers: list[str] = []
    async with faces.running(), _client(faces) as client:

        async def ask() -> None:
            answers.append((await client.get("/mcp")).text)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                assert answers == []
                may_load.set()
    assert answers == ["hello"]


async def test_a_face_that_does_not_come_up_says_so_and_the_others_live() -> None:
    def load() -> Faces:
        raise ImportError("no such package")

    faces = LateFaces(load)
    async with faces.running(), _client(faces) as client:
        answer = await client.get("/api/x")
        assert answer.status_code == 503
        assert "did not come up" in answer.json()["detail"]


async def test_a_late_value_is_made_once_however_many_ask() -> None:
    made: list[int] = []

    def make() -> str:
        made.append(1)
        return "value"

    late = Late(make)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(late.get)
    assert await late.get() == "value"
    assert made == [1]


async def test_a_late_adapter_is_the_adapter_once_it_is_needed() -> None:
    made: list[ScriptedAdapter] = []

    def make() -> ScriptedAdapter:
        made.append(ScriptedAdapter(ScriptedAgent("clerk")))
        return made[0]

    late = LateAdapter("scripted", make)
    assert late.name == "scripted"
    assert not made
    endpoint = Endpoint(binding=Binding.LOCAL, url="scripted:clerk")
    card = await late.describe(endpoint)
    assert card.name == "clerk"
    async with late.connect(endpoint, card=card, label="clerk") as connection:
        assert connection is not None
    assert len(made) == 1


async def test_an_open_stream_ends_when_it_is_to_end_and_a_plain_answer_is_left_alone() -> None:
    cancelled = anyio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        async def lines() -> AsyncGenerator[str]:
            try:
                yield "data: 1\n\n"
                await anyio.sleep_forever()
            finally:
                cancelled.set()

        await StreamingResponse(lines(), media_type="text/event-stream")(scope, receive, send)

    may_answer = anyio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await may_answer.wait()
        await PlainTextResponse("whole")(scope, receive, send)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (endless if scope["path"] == "/endless" else slow)(scope, receive, send)

    drain = Drain(app)
    answers: dict[str, str] = {}

    async def ask(client: httpx.AsyncClient, path: str) -> None:
        answers[path] = (await client.get(path)).text

    transport = httpx.ASGITransport(drain)
    async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, client, "/endless")
                tasks.start_soon(ask, client, "/slow")
                await anyio.wait_all_tasks_blocked()
                drain.end_streams()
                await cancelled.wait()
                may_answer.set()
    assert answers == {"/endless": "data: 1\n\n", "/slow": "whole"}
