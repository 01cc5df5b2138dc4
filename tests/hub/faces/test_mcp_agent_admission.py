"""Callers whom the policy denies a whole agent, at its own endpoint."""

import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import create_engine, select

from interhub.hub.auth import key_hash
from interhub.hub.settings import Auth, Policy, Rule
from interhub.registry.tables import audit
from tests.support.mcp_caller import LEGACY, Caller, Refused, caller
from tests.support.mcp_hub import relayed
from tests.support.mcp_servers import ROOT, at
from tests.support.mcp_trouble import trouble
from tests.support.whole_hub import WholeHub, whole_hub

pytestmark = pytest.mark.anyio

EVE = "ih_" + "e" * 43
PEER = ROOT / "tests" / "support" / "mcp_era_server.py"
HELLO = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("tools/list", {}),
    ("prompts/list", {}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "who", "value": ""}}),
)
MODERN: tuple[tuple[str, dict[str, Any]], ...] = (
    ("server/discover", {}),
    ("subscriptions/listen", {"notifications": {"toolsListChanged": True}}),
    *REQUESTS,
)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncGenerator[WholeHub]:
    rules = (
        Rule(effect="deny", agents=("payroll", "clerk"), principals=("key-*",), why="it is private"),
        Rule(effect="deny", agents=("open",), capabilities=("delete_*",)),
    )
    settings = {"policy": Policy(rules=rules)}
    async with whole_hub(tmp_path, auth=Auth(key_hashes=(key_hash(EVE),)), settings=settings) as running:
        for agent_id in ("payroll", "open"):
            endpoint = {"binding": "MCP-STDIO", "command": [sys.executable, str(PEER), "legacy"]}
            body = {"kind": "endpoint", "adapter": "mcp", "id": agent_id, "endpoint": endpoint}
            assert (await running.client.post("/api/agents", json=body)).status_code == 201
        yield running


async def quiet(eve: Caller) -> None:
    """Say no hello."""


async def refused(eve: Caller, method: str, params: dict[str, Any]) -> Refused:
    with pytest.raises(Refused) as raised:
        await eve.request(method, params)
    return raised.value


@pytest.mark.parametrize("agent", ["payroll", "clerk"])
async def test_who_is_denied_an_agent_finds_its_endpoint_closed(hub: WholeHub, agent: str, tmp_path: Path) -> None:
    url = f"{hub.url}/agents/{agent}/mcp"
    async with caller(url, modern=True, key=hub.key) as ada:
        assert (await ada.request("tools/list"))["tools"], "and it is up for others"
    asked = 0
    async with (
        caller(url, modern=True, key=EVE, greet=quiet) as modern,
        caller(url, modern=False, key=EVE, greet=quiet) as legacy,
    ):
        for who, requests in ((modern, MODERN), (legacy, (("initialize", HELLO), *REQUESTS))):
            for method, params in requests:
                error = await refused(who, method, params)
                asked += 1
                assert (error.code, error.data["reason"]) == (-32600, "PERMISSION_DENIED"), method
                assert error.message == f"any use of agent {agent} is not allowed: it is private"
    async with caller(url, modern=True, key=hub.key) as ada:
        assert (await ada.request("tools/list"))["tools"]
    shown = (await hub.client.get(f"/api/agents/{agent}")).json()
    assert len(shown["connections"]) <= 1, "no process was started for her"
    await until_recorded(hub, tmp_path, agent, asked)


async def test_a_request_of_who_is_shut_out_reaches_no_server_on_the_short_way_either() -> None:
    params = {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "who", "value": ""}}
    async with (
        trouble("modern") as (server, url),
        relayed(at(url)) as (hub, face),
        caller(face, modern=True, key="ada") as ada,
        caller(face, modern=True, key="eve") as eve,
    ):
        await ada.call("works")
        hub.shut_out.add("eve")
        error = await refused(eve, "completion/complete", params)
        assert error.message == "any use of agent it is not allowed: the test says so"
        assert "completion/complete" not in server.methods
        error = await refused(ada, "completion/complete", params)
        assert (error.code, server.methods[-1]) == (-32601, "completion/complete")


async def until_recorded(hub: WholeHub, folder: Path, target: str, count: int) -> None:
    engine = create_engine(f"sqlite:///{folder / 'interhub.db'}")
    found: list[Any] = []
    chosen = select(audit.c.decision, audit.c.outcome).where(audit.c.target == target, audit.c.action == "call")
    with anyio.fail_after(5):
        while len(found) < count:
            await hub.client.get("/healthz")
            with engine.connect() as connection:
                found = list(connection.execute(chosen).all())
    engine.dispose()
    assert {tuple(each) for each in found} == {("deny", "refused")}
    assert len(found) == count


async def test_who_is_denied_some_of_an_agent_finds_it_open(hub: WholeHub) -> None:
    for modern in (True, False):
        async with caller(f"{hub.url}/agents/open/mcp", modern=modern, key=EVE) as eve:
            for method, params in REQUESTS:
                await eve.request(method, params)
            assert (await eve.call("typed", {"n": 1}))["structuredContent"] == {"twice": 2}
            with pytest.raises(Refused, match="delete_all of agent open is not allowed"):
                await eve.call("delete_all")
