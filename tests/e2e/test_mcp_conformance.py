"""The MCP conformance suite, run through the hub's face of one server, finds what it finds at the server itself."""

import re
import sys
from dataclasses import dataclass

import anyio
import pytest

from interhub.adapters.mcp import McpAdapter
from interhub.agent_cards import Binding, Endpoint
from tests.support.mcp_hub import small_hub
from tests.support.mcp_servers import EVERYTHING, at, over_http, program
from tests.support.node import node_tools

pytestmark = pytest.mark.anyio

# Not scored: the Tasks extension is in no server here; `server-sse-polling` needs a server that closes its streams on
# purpose, which a relay does not do (it answers the scenario with nothing to check).
UNSCORED = re.compile(r"tasks-|server-sse-polling")
REQUIRED = {"2026-07-28": 37, "2025-11-25": 30}
"""How many scenarios each revision requires."""


@dataclass(frozen=True)
class Verdict:
    """What the suite says of a server."""

    conforms: bool
    """Every scenario that the revision requires passes, and none of them was left out."""
    scenarios: dict[str, tuple[int, int]]
    """Checks that passed and failed, by scenario."""
    said: str

    @property
    def failed(self) -> set[str]:
        return {name for name, (_, failed) in self.scenarios.items() if failed and not UNSCORED.match(name)}

    @property
    def passed(self) -> int:
        return sum(passed for name, (passed, _) in self.scenarios.items() if not UNSCORED.match(name))


async def verdict(url: str, revision: str) -> Verdict:
    tools = node_tools()
    # The suite's check of DNS rebinding wants a name, not a number.
    named = url.replace("127.0.0.1", "localhost")
    command = [*tools.conformance, "server", "--url", named, "--requirements", revision]
    with anyio.fail_after(180):
        done = await anyio.run_process(command, env=dict(tools.env), check=False)
    said = done.stdout.decode() + done.stderr.decode()
    found = re.findall(r"^[✓✗] (\S+): (\d+) passed, (\d+) failed$", said, re.MULTILINE)
    scenarios = {name: (int(passed), int(failed)) for name, passed, failed in found}
    beyond = re.search(r"^Not scored for \S+: (\d+) scenario", said, re.MULTILINE)
    required = len(scenarios) - (int(beyond[1]) if beyond else 0)
    return Verdict(done.returncode == 0 and required == REQUIRED[revision], scenarios, said)


@pytest.mark.parametrize("revision", REQUIRED)
async def test_a_server_behind_the_hub_conforms_as_it_does_alone(revision: str) -> None:
    async with over_http(EVERYTHING) as url, small_hub({"mcp": McpAdapter()}) as (hub, address):
        await hub.add("every", "mcp", at(url))
        alone = await verdict(url, revision)
        behind = await verdict(f"{address}/agents/every/mcp", revision)
    assert alone.conforms, alone.said[-3000:]
    assert behind.conforms, behind.said[-3000:]
    assert (behind.failed, behind.passed) == (alone.failed, alone.passed)
    assert behind.failed == set()


@pytest.mark.parametrize("revision", REQUIRED)
async def test_a_server_on_stdio_conforms_over_http_through_the_hub(revision: str) -> None:
    async with small_hub({"mcp": McpAdapter()}) as (hub, address):
        await hub.add("every", "mcp", program(EVERYTHING))
        behind = await verdict(f"{address}/agents/every/mcp", revision)
    assert behind.conforms, behind.said[-3000:]
    assert behind.failed == set()


async def test_the_bridge_conforms_as_what_is_behind_it() -> None:
    # The suite speaks HTTP only: a second hub takes the bridge to the first for a server on stdio.
    start = (
        "import sys, anyio; from interhub.hub.bridge import Address, stdio_bridge; "
        "anyio.run(stdio_bridge, lambda: Address(url=sys.argv[1], key='tester'))"
    )
    async with (
        small_hub({"mcp": McpAdapter()}) as (inner, inside),
        small_hub({"mcp": McpAdapter()}) as (outer, address),
    ):
        await inner.add("every", "mcp", program(EVERYTHING))
        command = (sys.executable, "-W", "ignore", "-c", start, f"{inside}/agents/every/mcp")
        await outer.add("bridge", "mcp", Endpoint(binding=Binding.MCP_STDIO, command=command))
        behind = await verdict(f"{address}/agents/bridge/mcp", "2026-07-28")
    assert behind.conforms, behind.said[-3000:]
    assert behind.failed == set()
