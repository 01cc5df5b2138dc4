"""A client of the older era and its own session with a server: what ends it, what does not, and what outlives it."""

import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from interhub.hub.faces.mcp import agent_relay
from interhub.hub.faces.mcp.entrance import McpEntrance
from tests.support.mcp_caller import LEGACY, Caller, Refused, caller
from tests.support.mcp_hub import relayed
from tests.support.mcp_servers import at, script
from tests.support.mcp_trouble import trouble

pytestmark = pytest.mark.anyio


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every request take the SDK's way."""

    async def serve(entrance: Any, scope: Any, receive: Any, send: Any, caller: Any = None) -> None:
        await entrance._app(scope, receive, send)

    monkeypatch.setattr(McpEntrance, "__call__", serve)


def text(result: dict[str, Any]) -> str:
    return str(result["content"][0]["text"])


@pytest.mark.usefixtures("long_way")
@pytest.mark.parametrize("fault", ["fails_503", "not_json", "web_page", "denies", "closes"])
async def test_a_fault_of_one_request_leaves_the_session_and_its_other_calls(fault: str) -> None:
    async with (
        trouble("legacy") as (server, url),
        relayed(at(url)) as (_, face),
        caller(face, modern=False) as ada,
    ):
        said: list[str] = []

        async def wait() -> None:
            said.append(text(await ada.call("waits")))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await server.begun.wait()
                with pytest.raises(Refused):
                    await ada.call(fault)
                assert text(await ada.call("works")) == "done"
                server.go_on.set()
        assert said == ["done"]
        assert server.greeted == 1, "the session has state that no other one has"


@pytest.mark.usefixtures("long_way")
@pytest.mark.parametrize("modern", [False, True], ids=["own", "shared"])
async def test_calls_side_by_side_after_an_expiry_share_one_new_session(modern: bool) -> None:
    async with (
        trouble("legacy") as (server, url),
        relayed(at(url)) as (_, face),
        caller(face, modern=modern) as ada,
    ):
        said: list[str] = []

        async def call() -> None:
            said.append(text(await ada.call("works")))

        await call()
        greeted = server.greeted
        for _ in range(5):
            server.sessions.clear()
            server.calls.clear()
            said.clear()
            with anyio.fail_after(10):
                async with anyio.create_task_group() as tasks:
                    for _ in range(8):
                        tasks.start_soon(call)
            assert said == ["done"] * 8
            assert server.calls == ["works"] * 8, "each is carried out once"
        assert server.greeted == greeted + 5


async def test_a_session_that_is_made_anew_has_the_subscriptions_and_the_log_level_of_the_old_one() -> None:
    async with (
        trouble("legacy") as (server, url),
        relayed(at(url)) as (_, face),
        caller(face, modern=False) as ada,
    ):
        await ada.request("logging/setLevel", {"level": "warning"})
        await ada.request("logging/setLevel", {"level": "debug"})
        for name in ("a", "b", "c"):
            await ada.request("resources/subscribe", {"uri": f"it://{name}"})
        await ada.request("resources/unsubscribe", {"uri": "it://b"})
        server.refused |= {"it://c", "it://d"}
        with pytest.raises(Refused):
            await ada.request("resources/subscribe", {"uri": "it://d"})
        server.kept.clear()
        for session in ("s2", "s3"):
            server.sessions.clear()
            assert text(await ada.call("works")) == "done"
            said = [(session, "logging/setLevel", "debug"), (session, "resources/subscribe", "it://a")]
            if session == "s2":
                said.append((session, "resources/subscribe", "it://c"))
            assert server.kept == said, "but not again what the server no longer has"
            server.kept.clear()


MORTAL = """
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    method, number, params = request["method"], request.get("id"), request.get("params", {})
    result = {"initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                  "serverInfo": {"name": "mortal", "version": "1"}},
              "tools/call": {"content": [{"type": "text", "text": str(os.getpid())}]}}
    if method in result:
        print(json.dumps({"jsonrpc": "2.0", "id": number, "result": result[method]}), flush=True)
    elif number is not None:
        error = {"code": -32601, "message": "Method not found"}
        print(json.dumps({"jsonrpc": "2.0", "id": number, "error": error}), flush=True)
    if params.get("name") == "die":
        break
"""


async def test_a_process_that_died_while_nobody_called_is_not_noticed_by_the_next_call() -> None:
    async with relayed(script(MORTAL)) as (_, face), caller(face, modern=False) as ada:
        with anyio.fail_after(10):
            died = int(text(await ada.call("die")))
            while _lives(died):  # noqa: ASYNC110 -- another process tells nobody
                await anyio.sleep(0.01)
            await anyio.wait_all_tasks_blocked()
            assert int(text(await ada.call("live"))) != died


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def greet(ada: Caller) -> None:
    """Say hello, and listen to nothing."""
    hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    await ada.request("initialize", hello)


async def silent(ada: Caller) -> None:
    """Say nothing."""


async def test_a_process_that_ends_at_once_is_not_started_for_every_session_that_is_wanted(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    server = f"import sys; open({str(starts)!r}, 'a').write('x'); sys.exit(3)"
    async with relayed(script(server)) as (_, face), caller(face, modern=False, greet=silent) as ada:
        told: list[str] = []
        for _ in range(20):
            with pytest.raises(Refused) as refused:
                await greet(ada)
            told.append(refused.value.message)
    assert "exited with status 3" in told[0]
    assert "next tried in" in told[1]
    assert len(starts.read_text()) < 10


async def test_one_caller_has_so_many_processes_of_a_server_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_relay, "_MOST_PROCESSES", 2)
    async with AsyncExitStack() as stack:
        _, face = await stack.enter_async_context(relayed(script(MORTAL)))
        ada, *_ = [
            await stack.enter_async_context(caller(face, modern=False, key="ada", greet=greet)) for _ in range(2)
        ]
        await stack.enter_async_context(caller(face, modern=False, key="eve", greet=greet))
        more = await stack.enter_async_context(caller(face, modern=False, key="ada", greet=silent))
        with pytest.raises(Refused, match="has 2 sessions with it, a process each, which is the most"):
            await greet(more)
        await ada.close()
        with anyio.fail_after(5):
            await greet(more)
        assert text(await more.call("live"))
