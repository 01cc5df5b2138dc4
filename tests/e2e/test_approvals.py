"""Questions of a LangGraph worker, a CrewAI worker, a remote A2A agent and an MCP server, two teams down.

Each is answered through MCP of both eras, A2A and the command line, of one real hub.
"""

import json
import os
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import httpx
import httpx2
import mcp_types as types
import pytest
import yaml
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.support.hub_process import Cli, HubProcess, cli, end, hub_process
from tests.support.mcp_servers import EVERYTHING
from tests.support.mcp_site import Person, fields
from tests.support.processes import ROOT, peer
from tests.support.workers import AGENTS, WORKER_ENVIRONMENTS

pytestmark = pytest.mark.anyio

SUPPORT = ROOT / "tests" / "support"
OTHER_KEY = "the key of somebody else, who runs nothing here"
RULES = [
    {"effect": "ask", "agents": ["mcp"], "capabilities": ["echo"], "why": "it is overheard"},
    {"effect": "ask", "agents": ["mcp"], "capabilities": ["fail"], "answer_by": ["key-*"], "expires_s": 3600},
    {"effect": "deny", "agents": ["mcp"], "capabilities": ["slow"], "why": "nobody has the time"},
    {"effect": "ask", "agents": ["every"], "capabilities": ["test_prompt_with_arguments", "test://*"]},
]
CALLS = {
    "langgraph": "{agent: langgraph, message: tea, data: {mode: ask}}",
    "crewai": "{agent: crewai, message: tea, data: {mode: ask}}",
    "a2a": "{agent: a2a, message: 'ask:tea'}",
    "mcp": "{agent: mcp, capability: ask, arguments: {message: tea}}",
}
SAID = {
    "langgraph": "answered blue",
    "crewai": "answered blue",
    "a2a": "blue",
    "mcp": "blue",
}
"""What each agent makes of the answer, which it was given in its own form."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Generator[HubProcess]:
    folder = tmp_path_factory.mktemp("approvals")
    (folder / "four.log").touch()
    env = {
        "INTERHUB_WORKERS__ENVIRONMENTS": str(WORKER_ENVIRONMENTS),
        "INTERHUB_POLICY__RULES": json.dumps(RULES),
        "INTERHUB_AUTH__KEY_HASHES": json.dumps([sha256(OTHER_KEY.encode()).hexdigest()]),
        "CREWAI_DISABLE_TELEMETRY": "true",
        "LANGSMITH_TRACING": "false",
    }
    with ExitStack() as stack:
        remote = stack.enter_context(
            peer(sys.executable, SUPPORT / "agents" / "sdk_13_agent.py", log=folder / "a2a.log")
        )
        running = stack.enter_context(hub_process(cli(folder, env)))
        with httpx.Client(base_url=running.url, headers=bearer(running.key), timeout=180) as http:
            for body in agents(folder, remote.url):
                added = http.post("/api/agents", json=body)
                assert added.status_code == 201, added.text
        yield running


def agents(folder: Path, remote: str) -> list[dict[str, Any]]:
    server = [sys.executable, "-W", "ignore", str(SUPPORT / "mcp_four.py"), str(folder / "mcp.log")]
    found: list[dict[str, Any]] = [
        {"kind": "url", "url": remote, "id": "a2a"},
        {"kind": "command", "command": server, "id": "mcp"},
        {"kind": "command", "command": [sys.executable, "-W", "ignore", str(EVERYTHING)], "id": "every"},
    ]
    for framework, target in (("langgraph", "graph"), ("crewai", "Four")):
        found.append(
            {
                "kind": "worker",
                "id": framework,
                "framework": framework,
                "target": f"{AGENTS / framework}_four.py:{target}",
                "env": {"FOUR_LOG": str(folder / "four.log")},
            }
        )
    for name, call in CALLS.items():
        plans = {
            f"{name}-inner": (name, f"[{{id: ask, call: {call}}}]"),
            f"{name}-outer": (f"{name}-inner", f"[{{id: pass, call: {{agent: {name}-inner}}}}]"),
        }
        for team, (member, steps) in plans.items():
            workflow = {"steps": yaml.safe_load(steps)}
            document = {"kind": "team", "name": team, "members": [member], "workflow": workflow}
            found.append({"kind": "document", "document": document})
    return found


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def at_mcp(hub: HubProcess, mode: str, person: Person | None, *, path: str = "/mcp") -> AsyncGenerator[Client]:
    async with httpx2.AsyncClient(headers=bearer(hub.key), timeout=60) as http:
        streams = streamable_http_client(hub.url + path, http_client=http)
        callback = person.elicit if person is not None else None
        async with Client(streams, mode=mode, elicitation_callback=callback) as client:
            yield client


def begun(hub: HubProcess, team: str) -> dict[str, Any]:
    """Begin a run, and return it once it asks."""
    with httpx.Client(base_url=hub.url, headers=bearer(hub.key), timeout=90) as http:
        run = http.post("/api/runs", json={"goal": "ask somebody", "agent_id": team, "wait_s": 60}).json()
    assert run["state"] == "input_required", run
    return cast("dict[str, Any]", run)


def ended(hub: HubProcess, run_id: str) -> dict[str, Any]:
    with httpx.Client(base_url=hub.url, headers=bearer(hub.key), timeout=90) as http:
        return cast("dict[str, Any]", http.get(f"/api/runs/{run_id}", params={"wait_s": 60}).json())


def answer_of(run: dict[str, Any]) -> str:
    assert run["state"] == "completed", run
    parts = [*run["parts"], *(part for made in run["artifacts"] for part in made["parts"])]
    return "\n".join(str(part["text"]) for part in parts if "text" in part)


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
@pytest.mark.parametrize("agent", CALLS)
async def test_an_mcp_client_of_either_era_is_asked_and_its_answer_reaches_the_agent(
    hub: HubProcess, agent: str, mode: str
) -> None:
    person = Person(answers={"answer": "blue"})
    async with at_mcp(hub, mode, person) as client:
        result = await client.call_tool("delegate", {"goal": "ask somebody", "agent": f"{agent}-outer"})
    assert len(person.asked) == 1
    assert SAID[agent] in fields(result)["answer"]


@pytest.mark.parametrize("agent", CALLS)
async def test_an_a2a_follow_up_on_the_same_task_answers(hub: HubProcess, agent: str) -> None:
    async def send(http: httpx.AsyncClient, text: str, **more: Any) -> Any:
        message = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": [{"text": text}], **more}
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
        answer = await http.post("/a2a", json=body, headers={"A2A-Version": "1.0"})
        return answer.json()["result"]["task"]

    async with httpx.AsyncClient(base_url=hub.url, headers=bearer(hub.key), timeout=90) as http:
        asked = await send(http, "ask somebody", metadata={"interhub/agent": f"{agent}-outer"})
        assert asked["status"]["state"] == "TASK_STATE_INPUT_REQUIRED", asked
        about = asked["status"]["message"]["metadata"]
        assert (about["interhub/agent"], about["interhub/step"].split(".")[0]) == (agent, "pass")
        more = {"taskId": asked["id"], "metadata": {"interhub/digest": about["interhub/digest"]}}
        done = await send(http, "blue", **more)
    assert done["status"]["state"] == "TASK_STATE_COMPLETED", done
    assert SAID[agent] in json.dumps(done["artifacts"])


@pytest.mark.parametrize("agent", CALLS)
def test_the_command_line_lists_shows_and_answers(hub: HubProcess, agent: str) -> None:
    run = begun(hub, f"{agent}-outer")
    asked = run["questions"][0]["id"]
    listed = hub.cli("approvals", "list", "--json").document["approvals"]
    assert [(one["agent_id"], one["for_me"]) for one in listed if one["id"] == asked] == [(agent, True)]
    assert asked in hub.cli("approvals", "show", asked).out
    said = hub.cli("approvals", "answer", asked, "blue")
    assert said.code == 0, said.err
    assert SAID[agent] in answer_of(ended(hub, run["id"]))
    again = hub.cli("approvals", "answer", asked, "green")
    assert again.code != 0
    assert "answered already, by default/local" in again.err


def test_foreign_and_tampered_answers_are_refused_and_the_question_stays_open(hub: HubProcess) -> None:
    run = begun(hub, "a2a-outer")
    asked = run["questions"][0]["id"]
    with httpx.Client(base_url=hub.url, headers=bearer(OTHER_KEY), timeout=30) as foreign:
        assert foreign.get("/api/approvals").json() == {"approvals": []}
        assert foreign.post(f"/api/approvals/{asked}/answer", json={"text": "red"}).status_code == 409
        assert foreign.post(f"/api/runs/{run['id']}/answer", json={"text": "red"}).status_code == 404
    with httpx.Client(base_url=hub.url, headers=bearer(hub.key), timeout=30) as http:
        wrong = http.post(f"/api/approvals/{asked}/answer", json={"text": "red", "digest": "sha256:0"})
        assert (wrong.status_code, "not what was seen" in wrong.json()["detail"]) == (409, True)
        right = {"text": "blue", "digest": run["questions"][0]["digest"]}
        assert http.post(f"/api/approvals/{asked}/answer", json=right).json()["accepted"] is True
        replayed = http.post(f"/api/approvals/{asked}/answer", json=right)
        assert (replayed.status_code, "answered already" in replayed.json()["detail"]) == (409, True)
    assert "blue" in answer_of(ended(hub, run["id"]))


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
@pytest.mark.parametrize("path", ["/mcp", "/agents/mcp/mcp"])
async def test_a_proxied_call_asks_its_caller_and_shows_the_exact_call(hub: HubProcess, mode: str, path: str) -> None:
    person = Person(answers={})
    tool = "mcp__echo" if path == "/mcp" else "echo"
    async with at_mcp(hub, mode, person, path=path) as client:
        result = await client.call_tool(tool, {"message": f"over {mode}"})
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == f"over {mode}"
    (asked,) = person.asked
    assert "May mcp do echo? it is overheard" in asked.message
    assert f'"arguments":{{"message":"over {mode}"}}' in asked.message


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
@pytest.mark.parametrize("path", ["/mcp", "/agents/every/mcp"])
async def test_a_prompt_and_a_resource_ask_their_caller_too(hub: HubProcess, mode: str, path: str) -> None:
    catalogue = path == "/mcp"
    uri = "test://static-text"
    asking = Person(answers={})
    async with at_mcp(hub, mode, asking, path=path) as client:
        name = ("every__" if catalogue else "") + "test_prompt_with_arguments"
        prompt = await client.get_prompt(name, {"arg1": "one", "arg2": "two"})
        read = await client.read_resource(f"interhub://every/{uri}" if catalogue else uri)
    assert isinstance(prompt.messages[0].content, types.TextContent)
    assert "one" in prompt.messages[0].content.text
    assert isinstance(read.contents[0], types.TextResourceContents)
    assert "static text" in read.contents[0].text
    assert ["test_prompt_with_arguments" in each.message for each in asking.asked] == [True, False]
    async with at_mcp(hub, mode, Person(action="decline"), path=path) as client:
        with pytest.raises(MCPError, match="declined it"):
            await client.read_resource(f"interhub://every/{uri}" if catalogue else uri)


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_proxied_call_that_is_declined_or_denied_is_not_made(hub: HubProcess, mode: str) -> None:
    async with at_mcp(hub, mode, Person(action="decline")) as client:
        result = await client.call_tool("mcp__echo", {"message": "x"})
        assert result.is_error
        assert "declined it" in str(result.content)
        denied = await client.call_tool("mcp__slow", {"message": "x"})
        assert "nobody has the time" in str(denied.content)


def test_an_approval_of_a_direct_call_is_good_for_that_call_once(hub: HubProcess) -> None:
    with httpx.Client(base_url=hub.url, headers=bearer(hub.key), timeout=60) as http:

        def call(message: str, **resume: Any) -> Any:
            body = {"capability": "echo", "arguments": {"message": message}, **({"resume": resume} if resume else {})}
            return http.post("/api/agents/mcp/call", json=body)

        state = call("one").json()["state"]
        changed = call("two", state=state, text="yes").json()
        assert changed["outcome"] == "input_required"  # another call is asked about anew
        assert '"message": "two"' in json.dumps(changed["question"])
        assert call("one", state=state, text="yes").json()["parts"][0]["text"] == "one"
        replayed = call("one", state=state, text="yes")
        assert (replayed.status_code, "answered already" in replayed.text) == (502, True)
        assert call("one", state=state[:-8] + "AAAAAAAA", text="yes").status_code == 400


def test_only_those_whom_the_rule_names_may_answer(hub: HubProcess) -> None:
    body = {"agent_id": "mcp", "capability": "fail", "arguments": {"message": "x"}, "wait_s": 30}
    with (
        httpx.Client(base_url=hub.url, headers=bearer(hub.key), timeout=60) as http,
        httpx.Client(base_url=hub.url, headers=bearer(OTHER_KEY), timeout=60) as boss,
    ):
        run = http.post("/api/runs", json=body).json()
        asked = run["questions"][0]["id"]
        assert http.post(f"/api/approvals/{asked}/answer", json={"text": "yes"}).status_code == 403
        (waiting,) = boss.get("/api/approvals").json()["approvals"]
        assert (waiting["id"], waiting["asked_by"], waiting["for_me"]) == (asked, "default/local", True)
        assert boss.get(f"/api/runs/{run['id']}").status_code == 404
        assert boss.post(f"/api/approvals/{asked}/answer", json={"text": "perhaps"}).status_code == 400
        assert boss.post(f"/api/approvals/{asked}/answer", json={"text": "no, never"}).json()["accepted"] is False
    assert "declined it" in ended(hub, run["id"])["error"]["message"]


def test_a_question_outlives_the_hub_that_asked_it(tmp_path: Path) -> None:
    command: Cli = cli(tmp_path, {"INTERHUB_POLICY__RULES": json.dumps([{"effect": "ask", "capabilities": ["echo"]}])})
    server = [sys.executable, "-W", "ignore", str(SUPPORT / "mcp_four.py"), str(tmp_path / "mcp.log")]
    with hub_process(command) as first:
        with httpx.Client(base_url=first.url, headers=bearer(first.key), timeout=60) as http:
            assert http.post("/api/agents", json={"kind": "command", "command": server, "id": "mcp"}).status_code == 201
            body = {"capability": "echo", "arguments": {"message": "still here"}}
            state = http.post("/api/agents/mcp/call", json=body).json()["state"]
        os.killpg(first.pid, 9)
        end(first.process)
    with (
        hub_process(command) as second,
        httpx.Client(base_url=second.url, headers=bearer(second.key), timeout=60) as http,
    ):
        done = http.post("/api/agents/mcp/call", json={**body, "resume": {"state": state, "text": "yes"}}).json()
    assert done["parts"][0]["text"] == "still here"


def test_an_unanswered_question_expires(tmp_path: Path) -> None:
    rules = [{"effect": "ask", "capabilities": ["echo"], "expires_s": 0.5}]
    command = cli(tmp_path, {"INTERHUB_POLICY__RULES": json.dumps(rules)})
    server = [sys.executable, "-W", "ignore", str(SUPPORT / "mcp_four.py"), str(tmp_path / "mcp.log")]
    with hub_process(command) as hub, httpx.Client(base_url=hub.url, headers=bearer(hub.key), timeout=60) as http:
        http.post("/api/agents", json={"kind": "command", "command": server, "id": "mcp"})
        body = {"agent_id": "mcp", "capability": "echo", "arguments": {"message": "x"}, "wait_s": 30}
        run = http.post("/api/runs", json=body).json()
        asked = run["questions"][0]["id"]
        events = http.get(f"/api/runs/{run['id']}/events", headers={"Accept": "text/event-stream"}).text
        assert "question_closed" in events
        assert "nobody answered in time" in events
        late = http.post(f"/api/approvals/{asked}/answer", json={"text": "yes"})
        assert (late.status_code, "has expired" in late.json()["detail"]) == (409, True)
