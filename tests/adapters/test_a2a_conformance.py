"""The A2A adapter keeps the contract with the servers of both SDK generations, on every version and binding."""

import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import pytest

from interhub.adapters import Adapter, Call
from interhub.adapters.a2a import A2aAdapter
from interhub.adapters.conformance import CHECKS, Check, Feature, Seen
from interhub.agent_cards import Binding, Endpoint
from tests.support.node import node_tools
from tests.support.processes import ROOT, Peer, environment, peer

pytestmark = pytest.mark.anyio

AGENTS = ROOT / "tests" / "support" / "agents"
REQUIREMENTS = ROOT / "tests" / "adapters" / "requirements"


@dataclass(frozen=True, kw_only=True)
class A2aHarness:
    """A running agent behind one of its interfaces."""

    peer: Peer
    endpoint: Endpoint
    adapter: Adapter
    features: frozenset[Feature] = frozenset(Feature)

    @property
    def dead_endpoint(self) -> Endpoint | None:
        dead = "127.0.0.1:9" if self.endpoint.binding is Binding.A2A_GRPC else "http://127.0.0.1:9/rpc"
        return replace(self.endpoint, url=dead)

    def request(self, capability: str, text: str, call: Call) -> Call:
        return replace(call, arguments={"message": f"{capability}:{text}"})

    async def seen(self) -> Sequence[Seen]:
        lines = self.peer.executions()
        canceled = {line["key"] for line in lines if line["event"] == "canceled"}
        return [
            Seen(text=str(line["text"]), key=str(line["key"]), canceled=line["key"] in canceled)
            for line in lines
            if line["event"] == "started"
        ]


@pytest.fixture(scope="module")
def new_agent(tmp_path_factory: pytest.TempPathFactory) -> Generator[Peer]:
    log = tmp_path_factory.mktemp("new") / "log"
    with peer(sys.executable, AGENTS / "sdk_13_agent.py", log=log) as running:
        yield running


@pytest.fixture(scope="module")
def unstreaming_agent(tmp_path_factory: pytest.TempPathFactory) -> Generator[Peer]:
    log = tmp_path_factory.mktemp("unstreaming") / "log"
    with peer(sys.executable, AGENTS / "sdk_13_agent.py", "--no-streaming", log=log) as running:
        yield running


@pytest.fixture(scope="module")
def grpc_agent(tmp_path_factory: pytest.TempPathFactory) -> Generator[Peer]:
    log = tmp_path_factory.mktemp("grpc") / "log"
    with peer(sys.executable, AGENTS / "sdk_13_agent.py", "--grpc", log=log) as running:
        yield running


@pytest.fixture(scope="module")
def old_agent(tmp_path_factory: pytest.TempPathFactory) -> Generator[Peer]:
    log = tmp_path_factory.mktemp("old") / "log"
    python = environment(REQUIREMENTS / "a2a_sdk_03.txt")
    with peer(python, AGENTS / "sdk_03_agent.py", log=log) as running:
        yield running


@pytest.fixture(scope="module")
def javascript_agent(tmp_path_factory: pytest.TempPathFactory) -> Generator[Peer]:
    log = tmp_path_factory.mktemp("javascript") / "log"
    tools = node_tools()
    with peer(tools.node, AGENTS / "js_agent.mjs", log=log, env={"NODE_PATH": str(tools.modules)}) as running:
        yield running


@pytest.fixture(scope="module")
def older_javascript_agent(tmp_path_factory: pytest.TempPathFactory) -> Generator[Peer]:
    log = tmp_path_factory.mktemp("older_javascript") / "log"
    tools = node_tools()
    with peer(tools.node, AGENTS / "js_03_agent.mjs", log=log, env={"NODE_PATH": str(tools.modules)}) as running:
        yield running


def harness(agent: Peer, path: str, binding: Binding, version: str) -> A2aHarness:
    endpoint = Endpoint(binding=binding, url=f"{agent.url}{path}", version=version)
    return A2aHarness(peer=agent, endpoint=endpoint, adapter=A2aAdapter())


INTERFACES = [
    pytest.param("/rpc", Binding.A2A_JSONRPC, id="jsonrpc"),
    pytest.param("/rest", Binding.A2A_REST, id="rest"),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize("version", ["1.0", "0.3"])
@pytest.mark.parametrize(("path", "binding"), INTERFACES)
async def test_the_contract_holds_with_a_streaming_agent_of_today(
    check: Check, new_agent: Peer, path: str, binding: Binding, version: str
) -> None:
    await check(harness(new_agent, path, binding, version))


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize(("path", "binding"), INTERFACES)
async def test_the_contract_holds_with_an_agent_that_cannot_stream(
    check: Check, unstreaming_agent: Peer, path: str, binding: Binding
) -> None:
    # Who polls sees what lasts long enough to be seen: passing news may be missed, results never.
    polled = replace(harness(unstreaming_agent, path, binding, "1.0"), features=frozenset(Feature) - {Feature.UPDATES})
    if check.applies_to(polled):
        await check(polled)


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_the_contract_holds_with_an_agent_that_is_reached_over_grpc_only(
    check: Check, grpc_agent: Peer, version: str
) -> None:
    adapter = A2aAdapter()
    card = await adapter.describe(Endpoint(binding=Binding.A2A_JSONRPC, url=grpc_agent.url))
    endpoint = next(each for each in card.interfaces if each.version == version)
    assert endpoint.binding is Binding.A2A_GRPC
    await check(A2aHarness(peer=grpc_agent, endpoint=endpoint, adapter=adapter))


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize(("path", "binding"), INTERFACES)
async def test_the_contract_holds_with_an_agent_on_the_last_0_3_sdk(
    check: Check, old_agent: Peer, path: str, binding: Binding
) -> None:
    await check(harness(old_agent, path, binding, "0.3"))


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize("version", ["1.0", "0.3"])
@pytest.mark.parametrize(("path", "binding"), INTERFACES)
async def test_the_contract_holds_with_an_agent_on_the_javascript_sdk(
    check: Check, javascript_agent: Peer, path: str, binding: Binding, version: str
) -> None:
    await check(harness(javascript_agent, path, binding, version))


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize(("path", "binding"), INTERFACES)
async def test_the_contract_holds_with_an_agent_on_the_last_javascript_sdk_of_0_3(
    check: Check, older_javascript_agent: Peer, path: str, binding: Binding
) -> None:
    await check(harness(older_javascript_agent, path, binding, "0.3"))
