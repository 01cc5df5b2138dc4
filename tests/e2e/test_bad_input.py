"""All that can be done wrong, by every face of one real hub: each mistake is told, and the hub and its agents go on."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.hub_process import Cli, HubProcess, cli, hub_process
from tests.support.mcp_servers import FOUR
from tests.support.workers import WORKER_ENVIRONMENTS

INTERNALS = (
    "Traceback",
    "site-packages",
    "pydantic",
    "sqlalche",
    " object at 0x",
    "its log says why",
    "bug in interhub",
)
QUICK_S = 10.0
NOBODY = "grow me a kidney from stem cells"

BAD_TEMPLATE = 'name: w\nsteps:\n  - id: a\n    call: {agent: four, capability: echo, message: "{{ inputs.x "}\n'
CIRCLE = (
    "name: w\nsteps:\n  - parallel:\n"
    "      - {id: a, needs: [b], call: {agent: four, capability: echo, message: x}}\n"
    "      - {id: b, needs: [a], call: {agent: four, capability: echo, message: x}}\n"
)
STRANGER = "name: w\nsteps:\n  - id: a\n    call: {agent: fuor, message: x}\n"


# The hub, and agents that are none


@dataclass(frozen=True)
class Answer:
    """What a face answered."""

    status: int
    text: str
    seconds: float

    @property
    def document(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Hub:
    """A running hub with one agent that works: an MCP server called four."""

    process: HubProcess
    folder: Path

    def ask(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None, key: str = ""
    ) -> Answer:
        """Send one request; a body that is bytes or text goes as it is."""
        where = urlsplit(self.process.url)
        raw = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {key or self.process.key}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        began = time.monotonic()
        try:
            connection.request(method, path, None if body is None else raw, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode(), time.monotonic() - began)
        finally:
            connection.close()

    def rest(self, method: str, path: str, body: object = None) -> Answer:
        return self.ask(method, f"/api{path}", body)

    def mcp(self, tool: str, arguments: object, *, key: str = "") -> Answer:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {"name": tool, "arguments": arguments, "_meta": meta}
        headers = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
        }
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        answer = self.ask("POST", "/mcp", asked, headers=headers, key=key)
        return Answer(answer.status, answer.text.rpartition("data: ")[2], answer.seconds)

    def a2a(self, method: str, params: object, *, key: str = "") -> Answer:
        asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return self.ask("POST", "/a2a", asked, headers={"A2A-Version": "1.0"}, key=key)

    def message(self, text: str, metadata: Mapping[str, object] | None = None, **more: object) -> Answer:
        """Send a message over A2A."""
        said = {"messageId": os.urandom(8).hex(), "role": "ROLE_USER", "parts": [{"text": text}], **more}
        return self.a2a("SendMessage", {"message": {**said, "metadata": metadata or {}}})

    def file(self, text: str) -> str:
        path = self.folder / "wrong.yaml"
        path.write_text(text)
        return str(path)

    def still_works(self) -> bool:
        """Whether the process is the same, and the agent that works answers."""
        body = {"capability": "echo", "arguments": {"message": "well"}}
        answer = self.rest("POST", "/agents/four/call", body)
        return self.process.process.poll() is None and answer.status == 200 and "well" in answer.text


PAGES: Mapping[str, tuple[str, bytes]] = {
    "html": ("text/html", b"<!doctype html><html><body>Hello</body></html>"),
    "huge": ("application/json", b'{"name": "' + b"x" * 20_000_000 + b'"}'),
    "missing": ("application/json", b'{"name": "x"}'),
    "future": (
        "application/json",
        b'{"name": "x", "description": "d", "version": "1", "capabilities": {}, "skills": [], "defaultInputModes": [],'
        b'"defaultOutputModes": [], "supportedInterfaces":'
        b'[{"url": "http://127.0.0.1:9/", "protocolBinding": "JSONRPC", "protocolVersion": "7.0"}]}',
    ),
    "no-utf-8": ("application/json", b'{"name": "\xff"}'),
    "deep": ("application/json", b"[" * 100_000),
    "empty": ("application/json", b""),
}


class Pages(BaseHTTPRequestHandler):
    """Answers every request with the page that the first part of its path names."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind, body = PAGES.get(self.path.split("/")[1], ("text/plain", b""))
        self.send_response(200 if kind != "text/plain" else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Does not mind who hangs up in the middle of twenty megabytes."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture(scope="module")
def pages() -> Generator[str]:
    with Server(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Generator[Hub]:
    folder = tmp_path_factory.mktemp("bad")
    env = {"INTERHUB_LIMITS__CONNECT_TIMEOUT_S": "4", "INTERHUB_WORKERS__ENVIRONMENTS": str(WORKER_ENVIRONMENTS)}
    command = cli(folder, env)
    with (folder / "hub.log").open("w") as log, hub_process(command, log=log) as process:
        running = Hub(process, folder)
        server = [sys.executable, "-W", "ignore", str(FOUR), str(folder / "four.log")]
        added = running.rest("POST", "/agents", {"kind": "command", "command": server, "id": "four"})
        assert added.status == 201, added.text
        yield running
        assert running.still_works()
    assert "request_failed" not in (folder / "hub.log").read_text(), "nothing was an error of the hub's own"


def clear(answer: Answer, *told: str) -> None:
    """Assert that an answer tells what is wrong, in time and without internals."""
    for each in told:
        assert each in answer.text, answer.text[:2000]
    for internal in INTERNALS:
        assert internal not in answer.text, answer.text[:2000]
    assert answer.seconds < QUICK_S


# Agents that cannot be added


@pytest.mark.parametrize(
    ("source", "status", "told"),
    [
        ({"kind": "url", "url": ""}, 400, "give one like https://host/path"),
        ({"kind": "url", "url": "ftp://x"}, 400, "is not an absolute http or https URL"),
        ({"kind": "url", "url": "http://["}, 400, "is not a URL"),
        ({"kind": "url", "url": "http://a\0b/"}, 400, "is not a URL"),
        ({"kind": "url", "url": "http://xn--/"}, 400, "is not a URL"),
        ({"kind": "url", "url": "http://127.0.0.1:99999/"}, 400, "99999 is not a port"),
        ({"kind": "url", "url": "http://127.0.0.1:99999/", "protocol": "mcp"}, 400, "99999 is not a port"),
        ({"kind": "url", "url": "http://127.0.0.1:1/"}, 502, "is it running, and is the port right?"),
        ({"kind": "url", "url": "http://nosuch.invalid/"}, 502, "could not be reached"),
        ({"kind": "url", "url": "http://127.0.0.1:1/", "headers": {"A\nB": "x"}}, 400, "is not a header name"),
        ({"kind": "url", "url": "http://127.0.0.1:1/mcp", "headers": {"A": "☃"}}, 400, "the value of header A"),
        ({"kind": "url", "url": "http://127.0.0.1:1/", "headers": {"A": "${NO_SUCH}"}}, 400, "NO_SUCH is not set"),
        ({"kind": "url", "url": "PAGES/html"}, 502, "an HTML page"),
        ({"kind": "url", "url": "PAGES/huge"}, 502, "more than 1,048,576 bytes"),
        ({"kind": "url", "url": "PAGES/missing"}, 502, "supportedInterfaces: is missing"),
        ({"kind": "url", "url": "PAGES/future"}, 502, "is for A2A 7.0, and interhub speaks 1.x and 0.3"),
        ({"kind": "url", "url": "PAGES/no-utf-8"}, 502, "is not valid UTF-8"),
        ({"kind": "url", "url": "PAGES/deep"}, 502, "broken JSON"),
        ({"kind": "url", "url": "PAGES/empty"}, 502, "give the card's own address"),
        ({"kind": "command", "command": [""]}, 400, "install it, or give its full path"),
        ({"kind": "command", "command": ["/no/such"]}, 400, "install it, or give its full path"),
        ({"kind": "command", "command": ["sh", "-c", "exit 3"]}, 502, "exited with status 3"),
        ({"kind": "command", "command": ["sh"], "cwd": "/no/such"}, 400, "the folder '/no/such' does not exist"),
        ({"kind": "endpoint", "adapter": "zzz", "endpoint": {"binding": "LOCAL"}}, 400, "no adapter is named 'zzz'"),
        ({"kind": "worker", "target": "/no/such.py:x", "framework": "langgraph"}, 400, "there is no file /no/such.py"),
        ({"kind": "worker", "target": "WORKER:x", "framework": "nope"}, 400, "frameworks: langgraph, crewai"),
        ({"kind": "command", "command": ["sh"], "id": "Bad Name\x1b[31m"}, 400, "lower-case letters, digits"),
        ({"kind": "command", "command": ["sh"], "id": "four"}, 409, "choose another with --name"),
        ({"kind": "wrong"}, 400, "is not one of command, document"),
        ({"kind": "document", "document": {"kind": "team", "name": "t", "members": ["fuor"]}}, 422, "'fuor'"),
        ({"kind": "document", "document": {"name": "w", "steps": 7}}, 422, "must be a list"),
    ],
    ids=lambda value: json.dumps(value)[:70] if isinstance(value, dict) else "",
)
def test_an_agent_that_cannot_be_reached_is_refused_with_the_place_and_the_remedy(
    hub: Hub, pages: str, source: Mapping[str, Any], status: int, told: str
) -> None:
    text = json.dumps(source).replace("PAGES", pages).replace("WORKER", str(hub.folder / "none.py"))
    (hub.folder / "none.py").touch()
    answer = hub.rest("POST", "/agents", text)
    assert answer.status == status, answer.text
    clear(answer, told)
    assert answer.document["code"] != "INTERNAL"
    assert len(answer.document["detail"]) < 900, "nobody reads that much"


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("import nosuch_thing\ngraph = 1\n", "No module named 'nosuch_thing'"),
        ("graph = (\n", "was never closed"),
        ("graph = 42\n", "is int, not a LangGraph graph"),
        ("other = 42\n", "has no 'graph'"),
        ("import os\nos._exit(3)\n", "ended with exit code 3"),
    ],
    ids=["no such import", "syntax", "another type", "no such object", "exit"],
)
def test_a_worker_that_does_not_load_says_where(hub: Hub, module: str, told: str) -> None:
    path = hub.folder / f"w{abs(hash(module))}.py"
    path.write_text(module)
    source = {"kind": "worker", "target": f"{path}:graph", "framework": "langgraph"}
    answer = hub.rest("POST", "/agents", source)
    assert answer.status in (400, 502), answer.text
    clear(answer, told, path.stem)


def test_servers_that_are_silent_or_print_garbage_keep_nobody_waiting(hub: Hub) -> None:
    garbage = ["sh", "-c", "while :; do echo garbage; sleep 0.1; done"]
    with ThreadPoolExecutor(2) as pool:
        tries = [
            pool.submit(hub.rest, "POST", "/agents", {"kind": "command", "command": command})
            for command in (garbage, ["sleep", "100"])
        ]
        assert hub.still_works()
        noisy, silent = (each.result() for each in tries)
    clear(noisy, "prints on its standard output what is not MCP ('garbage')")
    clear(silent, "did not answer within 4 s")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("agents", "add", "http://127.0.0.1:99999/"), 1, "99999 is not a port"),
        (("agents", "add", "--name", "four", "--", "true"), 1, "already registered as 'four'"),
        (("agents", "show", "fuor"), 1, "did you mean four?"),
        (("runs", "show", "\udcff"), 1, "is not UTF-8 text"),
        (("run", ""), 1, "give a goal in words"),
        (("runs", "list", "--state", "done"), 1, "'completed'"),
    ],
)
def test_the_command_line_says_it_in_one_line(hub: Hub, arguments: tuple[str, ...], code: int, told: str) -> None:
    said = hub.process.cli(*arguments)
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith("interhub: ")
    assert len(said.err.splitlines()) == 1, said.err
    assert told in said.err
    assert not any(internal in said.err for internal in INTERNALS)


# The same mistake by every face

Ask = Callable[[Hub], Answer]


def by_cli(*arguments: str) -> Ask:
    def ask(hub: Hub) -> Answer:
        began = time.monotonic()
        said = hub.process.cli(*arguments)
        assert said.code == 1, said
        return Answer(said.code, said.out + said.err, time.monotonic() - began)

    return ask


def by_file(text: str) -> Ask:
    return lambda hub: by_cli("run", "--workflow", hub.file(text))(hub)


def by_rest(method: str, path: str, body: object = None) -> Ask:
    return lambda hub: hub.rest(method, path, body)


def by_mcp(tool: str, **arguments: object) -> Ask:
    return lambda hub: hub.mcp(tool, arguments)


def by_message(text: str, metadata: Mapping[str, object] | None = None, **more: object) -> Ask:
    return lambda hub: hub.message(text, metadata, **more)


def by_a2a(method: str, **params: object) -> Ask:
    return lambda hub: hub.a2a(method, params)


def document(text: str) -> dict[str, Any]:
    import yaml

    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


FACES: list[tuple[str, str, Ask]] = [
    *(
        (mistake, told, ask)
        for mistake, told, asks in [
            (
                "an unknown agent",
                "no agent is registered as 'fuor'; did you mean four?",
                (
                    by_cli("run", "--agent", "fuor", "x"),
                    by_rest("POST", "/runs", {"goal": "x", "agent_id": "fuor"}),
                    by_rest("POST", "/agents/fuor/call", {}),
                    by_mcp("delegate", goal="x", agent="fuor"),
                    by_mcp("call", agent="fuor"),
                    by_message("x", {"interhub/agent": "fuor"}),
                ),
            ),
            (
                "an unknown capability",
                "agent 'four' has nothing called 'ecko'; did you mean echo?",
                (
                    by_cli("run", "--agent", "four", "--capability", "ecko", "x"),
                    by_rest("POST", "/runs", {"goal": "x", "agent_id": "four", "capability": "ecko"}),
                    by_rest("POST", "/agents/four/call", {"capability": "ecko"}),
                    by_mcp("delegate", goal="x", agent="four", capability="ecko"),
                    by_mcp("call", agent="four", capability="ecko"),
                    by_message("x", {"interhub/agent": "four", "interhub/capability": "ecko"}),
                ),
            ),
            (
                "no capability where there are several",
                "agent 'four' can do several things: name one (echo, ",
                (by_rest("POST", "/agents/four/call", {}), by_mcp("call", agent="four")),
            ),
            (
                "arguments that do not fit",
                "5 is not of type 'string'",
                (
                    by_rest("POST", "/agents/four/call", {"capability": "echo", "arguments": {"message": 5}}),
                    by_mcp("call", agent="four", capability="echo", arguments={"message": 5}),
                    by_mcp("delegate", goal="x", agent="four", capability="echo", arguments={"message": 5}),
                ),
            ),
            (
                "a goal that nobody can do",
                f"no registered agent can do '{NOBODY}'; see `interhub agents list`",
                (
                    by_cli("run", NOBODY),
                    by_rest("POST", "/runs", {"goal": NOBODY, "wait_s": 10}),
                    by_mcp("delegate", goal=NOBODY),
                    by_message(NOBODY),
                ),
            ),
            (
                "a goal of white space",
                "nothing is wanted yet",
                (
                    by_rest("POST", "/runs", {"goal": " \n"}),
                    by_rest("POST", "/runs", {"message": {}}),
                    by_mcp("delegate", goal="  "),
                    by_message("  "),
                ),
            ),
            (
                "inputs without a workflow",
                "inputs are for a workflow; name the workflow",
                (
                    by_rest("POST", "/runs", {"goal": "x", "inputs": {"a": 1}}),
                    by_mcp("delegate", goal="x", inputs={"a": 1}),
                    by_message("x", {"interhub/inputs": {"a": 1}}),
                ),
            ),
            (
                "a conversation's id that is none",
                "leave it out, or take an earlier run's",
                (
                    by_rest("POST", "/runs", {"goal": "x", "context_id": "\0"}),
                    by_mcp("delegate", goal="x", context_id="c" * 5000),
                    by_message("x", contextId="\0"),
                ),
            ),
            *(
                (
                    mistake,
                    told,
                    (
                        by_file(text),
                        by_rest("POST", "/runs", {"goal": "x", "workflow": document(text)}),
                        by_rest("POST", "/workflows/check", {"document": document(text)}),
                        by_mcp("delegate", goal="x", workflow=text),
                        by_mcp("delegate", goal="x", workflow=document(text)),
                        by_message("x", {"interhub/workflow": document(text)}),
                    ),
                )
                for mistake, told, text in [
                    ("a workflow with a cycle", "the steps need each other in a circle: a needs b needs a", CIRCLE),
                    ("a workflow with an unknown agent", "steps.a.call.agent: no agent is registered", STRANGER),
                    ("a bad template", "steps.a.call.message: bad template", BAD_TEMPLATE),
                ]
            ),
            (
                "an unknown run",
                "no run has the id 'nope'; see `interhub runs list`",
                (
                    by_cli("runs", "show", "nope"),
                    by_cli("runs", "answer", "nope", "x"),
                    by_rest("GET", "/runs/nope"),
                    by_rest("POST", "/runs/nope/cancel"),
                    by_rest("POST", "/runs/nope/answer", {"text": "x"}),
                    by_rest("GET", "/runs/nope/events"),
                    by_mcp("run_status", run_id="nope"),
                    by_mcp("run_result", run_id="nope", wait_s=5),
                    by_mcp("run_cancel", run_id="nope"),
                    by_mcp("answer", run_id="nope", answer="x"),
                    by_a2a("GetTask", id="nope"),
                    by_a2a("CancelTask", id="nope"),
                    by_a2a("SubscribeToTask", id="nope"),
                    by_message("x", taskId="nope"),
                ),
            ),
        ]
        for ask in asks
    )
]


@pytest.mark.parametrize(
    ("mistake", "told", "ask"), FACES, ids=[f"{mistake}-{n}" for n, (mistake, _, _) in enumerate(FACES)]
)
def test_every_face_says_the_same_of_the_same_mistake(hub: Hub, mistake: str, told: str, ask: Ask) -> None:
    answer = ask(hub)
    assert answer.status in (1, 200, 400, 404, 409, 422, 502), mistake
    said = answer.text
    clear(Answer(answer.status, said.replace('\\"', '"'), answer.seconds), told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: w\nsteps: [\n", "the workflow:3: it is not YAML"),
        (STRANGER, "the workflow:4, steps.a.call.agent"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("- 1\n", "a workflow is a mapping with name and steps"),
        ("a: &a [x, *a]\nname: w\n", "nested too deeply"),
        ("name: w\nsteps:\n  - id: a\n    call: {agent: four, message: 5}\n", "must be text, not int"),
    ],
    ids=["syntax", "unknown agent", "deep", "a list", "itself", "a number"],
)
def test_a_workflow_given_to_delegate_as_text_is_told_its_mistakes_with_lines(hub: Hub, text: str, told: str) -> None:
    clear(hub.mcp("delegate", {"goal": "x", "workflow": text}), told)


@pytest.mark.parametrize("face", ["cli", "rest", "mcp", "a2a"])
def test_an_ended_run_takes_neither_an_answer_nor_an_end(hub: Hub, face: str) -> None:
    body = {"goal": "x", "agent_id": "four", "capability": "echo", "arguments": {"message": "x"}, "wait_s": 20}
    run = hub.rest("POST", "/runs", body).document
    assert run["state"] == "completed", run
    match face:
        case "cli":
            cancel, answer = by_cli("runs", "cancel", run["id"]), by_cli("runs", "answer", run["id"], "x")
        case "rest":
            cancel = by_rest("POST", f"/runs/{run['id']}/cancel")
            answer = by_rest("POST", f"/runs/{run['id']}/answer", {"text": "x"})
        case "mcp":
            cancel, answer = by_mcp("run_cancel", run_id=run["id"]), by_mcp("answer", run_id=run["id"], answer="x")
        case _:
            cancel, answer = by_a2a("CancelTask", id=run["id"]), by_message("x", taskId=run["id"])
    clear(cancel(hub), "has already ended (completed)")
    clear(answer(hub), run["id"])


# Bodies that are none

BODIES: Mapping[str, bytes] = {
    "nothing": b"",
    "half": b"{",
    "a list": b"[]",
    "null": b"null",
    "no UTF-8": b'{"goal": "\xff"}',
    "half a character": b'{"goal": "\\ud800"}',
    "NaN": b'{"goal": "x", "wait_s": NaN}',
    "infinity": b'{"goal": "x", "wait_s": 1e999}',
    "negative": b'{"goal": "x", "wait_s": -1}',
    "a huge number": b'{"goal": "x", "budget": {"calls": 1' + b"0" * 400 + b"}}",
    "an unknown field": b'{"goal": "x", "gaol": 1}',
    "deep": b'{"a":' * 50_000,
    "too large": b'{"goal": "' + b"x" * 17_000_000 + b'"}',
}


@pytest.mark.parametrize("path", ["/api/runs", "/api/agents", "/mcp", "/a2a", "/a2a/rest/message:send"])
@pytest.mark.parametrize("body", BODIES, ids=str)
def test_a_body_that_cannot_be_read_is_refused_in_the_form_of_the_face(hub: Hub, path: str, body: str) -> None:
    headers = {
        "A2A-Version": "1.0",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
    }
    answer = hub.ask("POST", path, BODIES[body], headers=headers)
    clear(answer)
    assert answer.status == 413 if body == "too large" else answer.status in (200, 400), answer.text
    said = answer.document
    if path.startswith("/api"):
        assert said["status"] == answer.status
        assert said["code"]
        assert said["detail"]
    elif path == "/a2a/rest/message:send":
        assert said["error"]["code"] == answer.status
        assert said["error"]["message"]
    else:
        assert said["jsonrpc"] == "2.0"
        assert -32800 < said["error"]["code"] <= -32600
        assert said["error"]["message"]


@pytest.mark.parametrize("face", ["rest", "mcp", "a2a", "a2a rest"])
def test_a_wrong_key_is_refused_by_every_face(hub: Hub, face: str) -> None:
    match face:
        case "rest":
            answer = hub.ask("GET", "/api/runs", key="wrong")
        case "mcp":
            answer = hub.mcp("run_status", {"run_id": "x"}, key="wrong")
        case "a2a":
            answer = hub.a2a("GetTask", {"id": "x"}, key="wrong")
        case _:
            answer = hub.ask("GET", "/a2a/rest/tasks/x", key="wrong")
    assert answer.status == 401
    clear(answer, "a valid API key is needed", "interhub key show")


# A hub that cannot write


@contextmanager
def mounted(folder: Path, size: str) -> Generator[Path]:
    """Mount a small file system in memory; who may not is not the subject here."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if (
        sys.platform != "linux"
        or os.geteuid() != 0
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("mounting a file system needs root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_is_said_and_the_hub_goes_on_when_there_is_room(tmp_path: Path) -> None:
    body = {"goal": "x", "agent_id": "four", "capability": "echo", "arguments": {"message": "x"}, "wait_s": 10}
    with mounted(tmp_path / "disk", "4m") as disk, (tmp_path / "hub.log").open("w") as log:
        command = Cli(disk, tmp_path, tmp_path, {})
        with hub_process(command, log=log) as process:
            hub = Hub(process, tmp_path)
            server = [sys.executable, "-W", "ignore", str(FOUR), str(tmp_path / "four.log")]
            assert hub.rest("POST", "/agents", {"kind": "command", "command": server, "id": "four"}).status == 201
            fill(disk / "ballast")
            refused = hub.rest("POST", "/runs", body)
            assert refused.status == 503
            clear(refused, "the disk is full; free some space")
            assert hub.still_works()
            (disk / "ballast").unlink()
            assert hub.rest("POST", "/runs", body).document["state"] == "completed"
