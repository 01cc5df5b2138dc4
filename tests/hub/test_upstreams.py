"""MCP servers that die, hang or will not keep quiet, behind a whole hub: theirs is the trouble, and nobody else's."""

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import orjson
import pytest
from sqlalchemy import create_engine, select

from interhub.registry.tables import audit
from tests.support.whole_hub import WholeHub, whole_hub

pytestmark = pytest.mark.anyio

SERVER = """
import json, os, sys, threading, time
what, folder = sys.argv[1:]
turn = threading.Lock()
def say(message):
    with turn: print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
def number_of_lists():
    with open(f"{folder}/{what}.lists", "a") as file: file.write("x")
    return os.path.getsize(f"{folder}/{what}.lists")
def flood():
    while True:
        say({"method": "notifications/tools/list_changed"})
        time.sleep(0.001)
for line in sys.stdin:
    request = json.loads(line)
    method, number = request["method"], request.get("id")
    if method == "initialize":
        say({"id": number, "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": True}},
             "serverInfo": {"name": what, "version": "0"}}})
    elif method == "tools/list":
        times = number_of_lists()
        if what == "slow" and times > 1: time.sleep(600)
        name = f"do{times}" if what == "restless" else "do"
        hidden = "Does it.\\u202e\\u200b" if what == "sly" else "Does it."
        say({"id": number, "result": {"tools": [{"name": name, "description": hidden,
             "inputSchema": {"type": "object"}}]}})
    elif method == "tools/call":
        if what == "mortal": sys.exit(9)
        if what == "restless": threading.Thread(target=flood, daemon=True).start()
        say({"id": number, "result": {"content": [{"type": "text", "text": f"{what} did it"}]}})
    elif number is not None:
        say({"id": number, "error": {"code": -32601, "message": "no " + method}})
"""


@asynccontextmanager
async def hub_of(tmp_path: Path, *kinds: str) -> AsyncGenerator[WholeHub]:
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    async with whole_hub(tmp_path / "data") as hub:
        for kind in kinds:
            command = [sys.executable, "-u", "-W", "ignore", str(program), kind, str(tmp_path)]
            added = await hub.client.post("/api/agents", json={"kind": "command", "command": command, "id": kind})
            assert added.status_code == 201, added.text
        yield hub


async def mcp(hub: WholeHub, method: str, **params: Any) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": method,
        **({"Mcp-Name": str(params["name"])} if "name" in params else {}),
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    answered = await hub.client.post("/mcp", content=orjson.dumps(body), headers=headers)
    answered.raise_for_status()
    lines = [line[5:] for line in answered.text.splitlines() if line.startswith("data:")]
    result: dict[str, Any] = json.loads(lines[-1] if lines else answered.text)["result"]
    return result


async def tools(hub: WholeHub) -> set[str]:
    return {each["name"] for each in (await mcp(hub, "tools/list"))["tools"] if "__" in each["name"]}


async def shown(hub: WholeHub, agent_id: str) -> dict[str, Any]:
    answered = await hub.client.get(f"/api/agents/{agent_id}")
    found: dict[str, Any] = answered.json()
    return found


async def test_a_server_that_dies_or_hangs_keeps_its_tools_and_takes_nobody_elses(tmp_path: Path) -> None:
    async with hub_of(tmp_path, "good", "mortal", "slow") as hub:
        everything = {"good__do", "mortal__do", "slow__do"}
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:

                async def refresh() -> None:
                    with pytest.raises(httpx.ReadTimeout):
                        await hub.client.post("/api/agents/slow/refresh", timeout=3)

                tasks.start_soon(refresh)
                dead = await mcp(hub, "tools/call", name="mortal__do", arguments={})
                assert dead["isError"]
                assert "exited with status 9" in dead["content"][0]["text"]
                with anyio.fail_after(2.5):  # while the slow one is still being waited for
                    assert everything <= await tools(hub)
                    alive = await mcp(hub, "tools/call", name="good__do", arguments={})
                assert alive["content"][0]["text"] == "good did it"
            while (mortal := await shown(hub, "mortal"))["health"]["state"] != "failing":  # noqa: ASYNC110 -- told over HTTP
                await anyio.sleep(0.02)
            assert "exited with status 9" in mortal["health"]["last_error"]
            assert mortal["health"]["next_try_at"] > mortal["health"]["checked_at"]
            (session,) = mortal["connections"]
            assert session["state"] in ("idle", "failed")
            assert session["failures"] == 1
            assert "mortal" in session["last_error"]
            (session,) = (await shown(hub, "good"))["connections"]
            assert (session["state"], session["failures"], session["last_error"]) == ("open", 0, "")
            assert everything <= await tools(hub)


async def test_a_server_that_never_stops_changing_is_followed_and_does_not_rule_the_hub(tmp_path: Path) -> None:
    async with hub_of(tmp_path, "restless", "good") as hub:
        with anyio.fail_after(60):
            assert {"restless__do1", "good__do"} <= await tools(hub)
            await mcp(hub, "tools/call", name="restless__do1", arguments={})
            while "restless__do1" in await tools(hub):  # noqa: ASYNC110 -- told over HTTP
                await anyio.sleep(0.02)
            with anyio.fail_after(3):
                answered = await mcp(hub, "tools/call", name="good__do", arguments={})
            assert answered["content"][0]["text"] == "good did it"
            assert "good__do" in await tools(hub)
        # A notification a millisecond for more than a second: looks are far between.
        assert (tmp_path / "restless.lists").stat().st_size < 20


async def test_hidden_characters_are_told_where_agents_are_shown_found_and_recorded(tmp_path: Path) -> None:
    async with hub_of(tmp_path, "sly", "good") as hub:
        warning = "tool 'do': description holds invisible characters (U+202E, U+200B)"
        assert (await shown(hub, "sly"))["warnings"] == [warning]
        assert (await shown(hub, "good"))["warnings"] == []
        found = (await hub.client.get("/api/find", params={"need": "does it", "agent": "sly"})).json()
        assert [each["warnings"] for each in found["matches"]] == [[warning]]
        listed = (await mcp(hub, "tools/list"))["tools"]
        assert {each["description"] for each in listed if each["name"].endswith("__do")} == {"Does it."}
    engine = create_engine(f"sqlite:///{tmp_path / 'data' / 'interhub.db'}")
    with engine.connect() as connection:
        details = connection.execute(select(audit.c.target, audit.c.detail).where(audit.c.action == "agent_add")).all()
    engine.dispose()
    assert {target: detail.get("warnings") for target, detail in details if target in ("sly", "good")} == {
        "sly": [warning],
        "good": None,
    }
