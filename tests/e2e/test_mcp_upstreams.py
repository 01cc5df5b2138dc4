"""MCP servers that nobody here wrote, behind a real hub: what comes through it is what they say themselves.

Each is asked three times, by the SDK's client: directly, at `/agents/{id}/mcp`, and in the catalogue at `/mcp`.
"""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests.support.hub_process import HubProcess, cli, environment, hub_process
from tests.support.mcp_servers import ROOT
from tests.support.node import node_tools
from tests.support.processes import environment as python_environment

pytestmark = pytest.mark.anyio

REQUIREMENTS = ROOT / "tests" / "adapters" / "requirements"
SERVERS = ROOT / "tests" / "support" / "peers"
MODES = ["2026-07-28", "legacy"]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A server, and what is asked of it."""

    id: str
    command: Sequence[str]
    calls: Sequence[tuple[str, dict[str, Any]]]
    """Tools with their arguments, in this order: what one did, the next may see."""
    asking: Sequence[tuple[str, dict[str, Any]]] = ()
    """Tools that ask the client something."""
    needing: Sequence[str] = ()
    """Tools that are there only for clients that can be asked, which the hub is not where many share a server."""
    resources: Sequence[str] = ()
    prompts: Sequence[tuple[str, dict[str, str]]] = ()
    http: tuple[Sequence[str], dict[str, str]] | None = None
    """The arguments and the environment that make it serve HTTP at PORT."""


def everything() -> Peer:
    return Peer(
        id="everything",
        command=node_tools().script("@modelcontextprotocol/server-everything/dist/index.js"),
        calls=[
            ("echo", {"message": "hello"}),
            ("get-sum", {"a": 2, "b": 3}),
            ("get-structured-content", {"location": "Chicago"}),
            ("get-structured-content", {"location": "Atlantis"}),
            ("get-tiny-image", {}),
            ("get-annotated-message", {"messageType": "error", "includeImage": True}),
            ("get-resource-links", {"count": 2}),
            ("trigger-long-running-operation", {"duration": 0.2, "steps": 2}),
        ],
        asking=[
            ("trigger-sampling-request", {"prompt": "Capital?"}),
            ("trigger-elicitation-request", {}),
            ("get-roots-list", {}),
        ],
        needing=["trigger-sampling-request", "get-roots-list"],
        resources=["demo://resource/static/document/features.md"],
        prompts=[("simple-prompt", {}), ("args-prompt", {"city": "Rome", "state": "Lazio"})],
        http=(["streamableHttp"], {"PORT": "PORT"}),
    )


def filesystem() -> Peer:
    folder = ROOT / "examples"
    file = str(folder / "everything_server.py")
    return Peer(
        id="filesystem",
        command=[*node_tools().script("@modelcontextprotocol/server-filesystem/dist/index.js"), str(folder)],
        calls=[
            ("list_allowed_directories", {}),
            ("read_text_file", {"path": file, "head": 3}),
            ("list_directory", {"path": str(folder)}),
            ("search_files", {"path": str(folder), "pattern": "*.py"}),
            ("read_text_file", {"path": str(ROOT / "LICENSE")}),
        ],
    )


def memory() -> Peer:
    ada = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}
    return Peer(
        id="memory",
        command=node_tools().script("@modelcontextprotocol/server-memory/dist/index.js"),
        calls=[
            ("delete_entities", {"entityNames": ["Ada"]}),
            ("create_entities", {"entities": [ada]}),
            ("search_nodes", {"query": "programs"}),
            ("add_observations", {"observations": [{"entityName": "Nobody", "contents": ["x"]}]}),
            ("read_graph", {}),
        ],
    )


def python_server(name: str, script: str, *, asking: Sequence[tuple[str, dict[str, Any]]] = ()) -> Peer:
    python = python_environment(REQUIREMENTS / f"{script}.txt")
    return Peer(
        id=name,
        command=[str(python), str(SERVERS / f"{script}_server.py")],
        calls=[("add", {"a": 2, "b": 3}), ("fail", {"why": "asked to"}), ("add", {"a": "x"}), ("count", {"to": 3})],
        asking=asking,
        resources=["fixed://poem", "note://rain"],
        prompts=[("praise", {"whom": "Ada"})],
        http=(["--http", "PORT"], {}),
    )


PEERS: dict[str, Callable[[], Peer]] = {
    "everything": everything,
    "filesystem": filesystem,
    "memory": memory,
    "fastmcp": lambda: python_server("fastmcp", "fastmcp"),
    "mcp-1": lambda: python_server("mcp-1", "mcp_1", asking=[("greet", {})]),
}


@dataclass
class Asked:
    """Somebody at the client, who is asked things, and hears how far they are."""

    of_me: list[str] = field(default_factory=list[str])
    heard: list[tuple[float, float | None]] = field(default_factory=list[tuple[float, float | None]])

    async def elicit(self, context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        self.of_me.append(params.message)
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    async def sample(self, context: object, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        self.of_me.append(json.dumps(params.model_dump(mode="json", by_alias=True)["messages"]))
        said = types.TextContent(type="text", text="Paris")
        return types.CreateMessageResult(role="assistant", model="none", content=said)

    async def roots(self, context: object) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root.model_validate({"uri": "file:///home/ada", "name": "home"})])

    async def hear(self, progress: float, total: float | None, message: str | None) -> None:
        self.heard.append((progress, total))


def bare(result: Any, names: str = "") -> Any:
    """A result as JSON, without what each hop adds about itself, and without the hub's prefix of resources."""
    dumped = result.model_dump(mode="json", by_alias=True, exclude_none=True)
    for key in ("_meta", "resultType", "ttlMs", "cacheScope"):
        dumped.pop(key, None)
    return json.loads(json.dumps(dumped).replace(f"interhub://{names}/", "")) if names else dumped


async def refused(attempt: Any) -> Any:
    try:
        return await attempt
    except MCPError as error:
        return error


async def observe(client: Client, peer: Peer, asked: Asked, *, catalogue: bool = False) -> dict[str, Any]:
    """Ask a server everything that is asked of it, and return what came of it."""
    tool = f"{peer.id}__" if catalogue else ""
    scheme = f"interhub://{peer.id}/" if catalogue else ""
    seen: dict[str, Any] = {}
    listed = (await client.list_tools()).tools
    seen["tools"] = {each.name.removeprefix(tool): each.input_schema for each in listed if each.name.startswith(tool)}
    for number, (name, arguments) in enumerate([*peer.calls, *(() if catalogue else peer.asking)]):
        asked.heard.clear()
        found = await refused(client.call_tool(tool + name, arguments, progress_callback=asked.hear))
        said = bare(found, peer.id) if not isinstance(found, MCPError) else {"isError": True}
        # The words of a refusal are the hub's own where it sees what is wrong before the server is asked.
        seen[f"{number} {name}"] = {"isError": True} if said.get("isError") else said
        seen[f"{number} progress"] = [] if catalogue and not asked.heard else list(asked.heard)
    for uri in peer.resources:
        seen[uri] = bare(await client.read_resource(scheme + uri), peer.id)
    for name, given in peer.prompts:
        seen[name] = bare(await client.get_prompt(tool + name, given), peer.id)
    seen["asked"] = list(asked.of_me)
    return seen


@contextmanager
def serving(peer: Peer, home: Path) -> Generator[str]:
    """Run a server over HTTP and yield its URL."""
    assert peer.http is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments, extra = peer.http
    command = [*peer.command, *(port if each == "PORT" else each for each in arguments)]
    env = environment(home, dict.fromkeys(extra, port))
    with (home / f"{peer.id}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=home, start_new_session=True)
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True, kw_only=True)
class Site:
    """The hub, and the servers behind it that serve HTTP."""

    hub: HubProcess
    urls: dict[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    home = tmp_path_factory.mktemp("upstreams")
    (home / "interhub.toml").write_text('[catalogue]\nmode = "all"\n')
    with ExitStack() as stack:
        hub = stack.enter_context(hub_process(cli(home)))
        urls: dict[str, str] = {}
        for peer in (make() for make in PEERS.values()):
            added = hub.cli("agents", "add", "--name", peer.id, "--", *peer.command)
            assert added.code == 0, added.err
            if peer.http is not None:
                urls[peer.id] = stack.enter_context(serving(peer, home))
                added = hub.cli("agents", "add", "--name", f"{peer.id}-http", "--protocol", "mcp", urls[peer.id])
                assert added.code == 0, added.err
        yield Site(hub=hub, urls=urls)


@asynccontextmanager
async def through(hub: HubProcess, path: str, mode: str, asked: Asked) -> AsyncGenerator[Client]:
    headers = {"Authorization": f"Bearer {hub.key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=None) as http,
        client(streamable_http_client(hub.url + path, http_client=http), mode, asked) as opened,
    ):
        yield opened


def client(target: Any, mode: str, asked: Asked) -> Client:
    return Client(
        target,
        mode=mode,
        elicitation_callback=asked.elicit,
        sampling_callback=asked.sample,
        list_roots_callback=asked.roots,
    )


SERVING = ["everything", "fastmcp", "mcp-1"]
CASES = [(name, mode) for name in (*PEERS, *(f"{each}-http" for each in SERVING)) for mode in MODES]


@pytest.mark.parametrize(("name", "mode"), CASES)
async def test_what_a_server_says_comes_through_the_hub(site: Site, name: str, mode: str) -> None:
    peer = PEERS[name.removesuffix("-http")]()
    target: Any = StdioServerParameters(
        command=peer.command[0], args=list(peer.command[1:]), env=environment(site.hub.cli.home)
    )
    if name.endswith("-http"):
        target = site.urls[peer.id]
    with anyio.fail_after(60):
        async with client(target, "auto", asked := Asked()) as direct:
            alone = await observe(direct, peer, asked)
        async with through(site.hub, f"/agents/{name}/mcp", mode, asked := Asked()) as relayed:
            behind = await observe(relayed, peer, asked)
        here = replace(peer, id=name)
        async with through(site.hub, "/mcp", mode, asked := Asked()) as everybody:
            offered = await observe(everybody, here, asked, catalogue=True)
    assert alone["tools"], "the server lists its tools"
    for what in alone:
        assert behind.get(what) == alone[what], what
    assert behind.keys() == alone.keys()
    for what, said in offered.items():
        if what not in ("asked", "tools"):
            assert said == alone[what], what
    assert offered["tools"].keys() == alone["tools"].keys() - set(peer.needing)
