"""The MCP adapter keeps the contract, over both transports and in both eras."""

import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from interhub.adapters import Adapter, Call
from interhub.adapters.conformance import CHECKS, Check, Feature, Harness, Seen
from interhub.adapters.mcp import McpAdapter
from interhub.agent_cards import Binding, Endpoint, Kind
from tests.support.mcp_servers import FOUR, at, over_http, program

pytestmark = pytest.mark.anyio


class McpHarness:
    """The four tools in a server of its own."""

    features = frozenset({Feature.UPDATES, Feature.ASKS, Feature.RESUMES_ANYWHERE, Feature.KEYS})

    def __init__(self, endpoint: Endpoint, dead: Endpoint, log: Path) -> None:
        self.adapter: Adapter = McpAdapter(startup_timeout_s=20)
        self.endpoint = endpoint
        self.dead_endpoint: Endpoint | None = dead
        self._log = log

    def request(self, capability: str, text: str, call: Call) -> Call:
        return Call(
            capability=capability,
            kind=Kind.TOOL,
            arguments=call.arguments,
            principal=call.principal,
            idempotency_key=call.idempotency_key,
        )

    async def seen(self) -> Sequence[Seen]:
        found: dict[str, Seen] = {}
        for line in self._log.read_text().splitlines() if self._log.exists() else ():
            entry = json.loads(line)
            found[entry["key"]] = Seen(text=entry["text"], key=entry["key"], canceled=entry["canceled"])
        return list(found.values())


@asynccontextmanager
async def harness(kind: str, folder: Path) -> AsyncGenerator[Harness]:
    transport, era = kind.split("-")
    log = folder / "seen.jsonl"
    if transport == "stdio":
        dead = Endpoint(binding=Binding.MCP_STDIO, command=(sys.executable, "-c", "raise SystemExit(7)"))
        yield McpHarness(program(FOUR, str(log), "--era", era), dead, log)
        return
    async with over_http(FOUR, str(log), "--era", era) as url:
        yield McpHarness(at(url), at("http://127.0.0.1:9/mcp"), log)


# Every check over each transport; the other era of each where the two differ, in what asks and what is cancelled.
SCOPES = [
    *((check, kind) for check in CHECKS for kind in ("stdio-both", "http-legacy")),
    *((check, kind) for check in CHECKS for kind in ("stdio-legacy", "http-both") if "question" in str(check)),
    *((check, "http-both") for check in CHECKS if "cancellation" in str(check)),
]


@pytest.mark.parametrize(("check", "kind"), SCOPES, ids=str)
async def test_the_mcp_adapter_keeps_the_contract(check: Check, kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as under_test:
        if check.applies_to(under_test):
            await check(under_test)
