"""The bundle for Claude Desktop: built, unpacked, configured and started as such a client does, before a real hub."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import pytest
from uv import find_uv_bin

from tests.support.hub_process import HubProcess, cli, hub_process
from tests.support.mcp_servers import EVERYTHING, ROOT
from tests.support.node import node_tools
from tests.support.stdio_host import legacy, process_host, request

pytestmark = pytest.mark.anyio

# What clients use to make a command of a manifest and of what the user entered.
CONFIGURE = """
import { readFileSync } from "node:fs";
import { getMcpConfigForManifest } from "@anthropic-ai/mcpb";
const [extensionPath, userConfig] = process.argv.slice(2);
const manifest = JSON.parse(readFileSync(`${extensionPath}/manifest.json`));
const options = { manifest, extensionPath, systemDirs: {}, userConfig: JSON.parse(userConfig), pathSeparator: "/" };
console.log(JSON.stringify((await getMcpConfigForManifest(options)) ?? null));
"""


def mcpb(*arguments: str) -> str:
    tools = node_tools()
    command = [*tools.script("@anthropic-ai/mcpb/dist/cli/cli.js"), *arguments]
    return subprocess.run(command, env=dict(tools.env), capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    bundle = folder / "interhub.mcpb"
    built = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "mcpb.py"), "--output", str(bundle)], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    mcpb("unpack", str(bundle), str(folder / "unpacked"))
    return folder / "unpacked"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Generator[HubProcess]:
    with hub_process(cli(tmp_path_factory.mktemp("hub"))) as running:
        added = running.cli("agents", "add", "--name", "every", "--", sys.executable, "-W", "ignore", str(EVERYTHING))
        assert added.code == 0, added.err
        yield running


def configured(unpacked: Path, **entered: str) -> dict[str, Any] | None:
    """What the client starts, after the user has entered this; None when something is missing."""
    tools = node_tools()
    script = tools.modules.parent / "configure.mjs"  # beside node_modules, where imports are looked for
    script.write_text(CONFIGURE)
    done = subprocess.run(
        [str(tools.node), str(script), str(unpacked), json.dumps(entered)], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] | None = json.loads(done.stdout)
    return found


def client_environment(config: dict[str, Any]) -> dict[str, str]:
    uv = Path(find_uv_bin()).parent
    # uv finds the Python it is to use by itself on a user's machine, and fetches one if there is none.
    mine = {"PATH": f"{uv}{os.pathsep}{os.environ['PATH']}", "UV_PYTHON": sys.executable}
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    return {**kept, **mine, **config["env"]}


def test_the_manifest_is_valid_and_keeps_the_key_a_secret(unpacked: Path) -> None:
    assert "valid" in mcpb("validate", str(unpacked / "manifest.json")).lower()
    manifest = json.loads((unpacked / "manifest.json").read_text())
    assert manifest["manifest_version"] == "0.4"
    assert manifest["version"] == json.loads(cli(unpacked.parent)("--json", "version").out)["version"]
    assert [name for name, field in manifest["user_config"].items() if field.get("sensitive")] == ["api_key"]
    assert configured(unpacked) is None, "a client starts nothing before the key is entered"


def test_it_holds_the_bridge_and_nothing_else_of_the_hub(unpacked: Path) -> None:
    modules = {path.name for path in (unpacked / "server" / "interhub").rglob("*.py")}
    assert modules == {path.name for path in (ROOT / "hub" / "bridge").glob("*.py")}


async def test_what_the_manifest_says_is_started_and_calls_a_tool_in_both_eras(unpacked: Path, hub: HubProcess) -> None:
    config = configured(unpacked, hub_url=f"{hub.url}/mcp", api_key=hub.key)
    assert config is not None
    command = [config["command"], *config["args"]]
    arguments = {"agent": "every", "capability": "add", "arguments": {"a": 20, "b": 22}}
    env = client_environment(config)
    with anyio.fail_after(120):
        async with process_host(command, env=env, cwd=unpacked.parent) as host:
            result = await host.ask(request(1, "tools/call", name="call", arguments=arguments))
            assert "42" in json.dumps(result["content"])
            assert await host.leave() == 0
        async with process_host(command, env=env, cwd=unpacked.parent) as host:
            await host.begin()
            names = [tool["name"] for tool in (await host.ask(legacy(1, "tools/list")))["tools"]]
            manifest = json.loads((unpacked / "manifest.json").read_text())
            assert names[: len(manifest["tools"])] == [tool["name"] for tool in manifest["tools"]]
            result = await host.ask(legacy(2, "tools/call", name="call", arguments=arguments))
            assert "42" in json.dumps(result["content"])


async def test_one_agent_alone_is_offered_where_the_user_wants_that(unpacked: Path, hub: HubProcess) -> None:
    config = configured(unpacked, hub_url=hub.url, api_key=hub.key, agent="every")
    assert config is not None
    env = client_environment(config)
    with anyio.fail_after(60):
        async with process_host([config["command"], *config["args"]], env=env, cwd=unpacked.parent) as host:
            result = await host.ask(request(1, "tools/call", name="add", arguments={"a": 1, "b": 2}))
            assert result["structuredContent"] == {"sum": 3}


@pytest.mark.parametrize(
    ("entered", "complaint"),
    [
        ({"hub_url": "hub.example.com", "api_key": "k"}, "is no address"),
        ({"hub_url": "http://hub.example.com", "api_key": "k"}, "use https"),
        ({"api_key": "ключ"}, "interhub key show"),
        ({"api_key": "k", "agent": "a", "profile": "b"}, "leave one of them empty"),
    ],
)
def test_what_cannot_be_used_is_said_in_the_words_of_the_settings(
    unpacked: Path, entered: dict[str, str], complaint: str
) -> None:
    config = configured(unpacked, **entered)
    assert config is not None
    # Without uv, which has been shown to start it above.
    done = subprocess.run(
        [sys.executable, config["args"][-1]],
        env=client_environment(config),
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert complaint in done.stderr


async def test_a_hub_that_does_not_run_is_told_with_its_remedy(unpacked: Path) -> None:
    config = configured(unpacked, hub_url="http://127.0.0.1:9", api_key="k")
    assert config is not None
    env = client_environment(config)
    with anyio.fail_after(60):
        async with process_host([sys.executable, config["args"][-1]], env=env, cwd=unpacked.parent) as host:
            await host.say(request(1, "server/discover"))
            said = (await host.answer_to(1))["error"]["message"]
            assert "127.0.0.1:9" in said
            assert "interhub serve" in said
