"""MCP servers that are not there, are not MCP, or misbehave: each a clear error, and the next call goes on."""

import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from interhub.adapters import (
    AdapterError,
    BadEndpoint,
    Call,
    Completed,
    Connection,
    Principal,
    ProtocolViolation,
    RemoteDenied,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
    ignore,
    text_of,
)
from interhub.adapters.mcp import McpAdapter
from interhub.agent_cards import AgentCard, Binding, Capability, Endpoint, JsonObject, Kind
from tests.support.mcp_servers import EVERYTHING, at, program, script, serving

pytestmark = pytest.mark.anyio

Answer = Callable[[Request], Awaitable[Response]]


async def refusal(endpoint: Endpoint, *, timeout_s: float = 15.0) -> AdapterError:
    """Return the error of describing a server, which must come soon."""
    with anyio.fail_after(timeout_s + 10), pytest.raises(AdapterError) as raised:
        await McpAdapter(startup_timeout_s=timeout_s, env={}).describe(endpoint)
    return raised.value


def web(answer: Answer) -> Starlette:
    return Starlette(routes=[Route("/mcp", answer, methods=["GET", "POST", "DELETE"])])


@pytest.mark.parametrize(
    ("endpoint", "kind", "words"),
    [
        (Endpoint(binding=Binding.MCP_STDIO, command=("no-such-program",)), BadEndpoint, "is not installed"),
        (Endpoint(binding=Binding.MCP_STDIO), BadEndpoint, "no command is given"),
        (
            Endpoint(binding=Binding.MCP_STDIO, command=(sys.executable,), cwd="/no/such/folder"),
            BadEndpoint,
            "'/no/such/folder' does not exist",
        ),
        (
            script("import sys; print('the licence has expired', file=sys.stderr); sys.exit(4)"),
            RemoteUnavailable,
            "exited with status 4; the end of its error output:\nthe licence has expired",
        ),
        (script("import time; time.sleep(60)"), RemoteUnavailable, "did not answer within 1 s"),
        (
            script("import time\nwhile True: print('Starting up...'); time.sleep(0.05)"),
            ProtocolViolation,
            "prints on its standard output what is not MCP ('Starting up...')",
        ),
        (script("print('hello')"), RemoteUnavailable, "exited with status 0; it had printed"),
        (at("ftp://example.com"), BadEndpoint, "not an http or https URL"),
        (at("http://127.0.0.1:9/mcp"), RemoteUnavailable, "nothing answers at 127.0.0.1:9"),
        (at("http://127.0.0.1:9/mcp", version="1999-01-01"), BadEndpoint, "MCP has no version '1999-01-01'"),
        (
            Endpoint(binding=Binding.MCP_HTTP, url="http://127.0.0.1:9/mcp", headers={"X-Key": "${NOT_SET}"}),
            BadEndpoint,
            "NOT_SET is not set",
        ),
    ],
    ids=[
        "no program", "no command", "no folder", "exits", "never answers", "garbage", "garbage and exit",
        "no http", "nobody there", "no version", "no secret",
    ],
)  # fmt: skip
async def test_a_server_that_cannot_be_used_says_why(endpoint: Endpoint, kind: type[AdapterError], words: str) -> None:
    error = await refusal(endpoint, timeout_s=1.0 if "1 s" in words or "Starting" in words else 15.0)
    assert type(error) is kind
    assert words in str(error)


async def page(request: Request) -> Response:
    return Response("<html><body>It works!</body></html>", media_type="text/html")


async def missing(request: Request) -> Response:
    return JSONResponse({"detail": "Not Found"}, status_code=404)


async def locked(request: Request) -> Response:
    return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})


async def down(request: Request) -> Response:
    return PlainTextResponse("upstream connect error", status_code=503)


async def moved(request: Request) -> Response:
    return Response(status_code=307, headers={"Location": "http://elsewhere.invalid/mcp"})


async def other_json(request: Request) -> Response:
    return JSONResponse({"hello": "world"})


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (page, ProtocolViolation, "answered with a web page, not with MCP"),
        (missing, ProtocolViolation, "answered HTTP 404"),
        (locked, RemoteDenied, "HTTP 401; give it credentials"),
        (down, RemoteUnavailable, "HTTP 503 (upstream connect error)"),
        (moved, ProtocolViolation, "elsewhere.invalid"),
        (other_json, ProtocolViolation, "is not JSON-RPC"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_is_no_mcp_server_on_the_web_says_what_it_is(
    answer: Answer, kind: type[AdapterError], words: str
) -> None:
    async with serving(web(answer)) as address:
        error = await refusal(at(f"{address}/mcp"))
    assert isinstance(error, kind)
    assert words in str(error)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (page, ProtocolViolation, "text/event-stream"),
        (missing, ProtocolViolation, "HTTP 404"),
        (locked, RemoteDenied, "401"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_is_no_sse_server_says_what_it_is(answer: Answer, kind: type[AdapterError], words: str) -> None:
    async with serving(web(answer)) as address:
        error = await refusal(Endpoint(binding=Binding.MCP_SSE, url=f"{address}/mcp"))
    assert isinstance(error, kind)
    assert words in str(error)


async def test_an_sse_server_that_says_nothing_is_given_up() -> None:
    async def silent(request: Request) -> Response:
        async def nothing() -> AsyncGenerator[bytes]:
            yield b": wait\n\n"
            await anyio.sleep_forever()

        return StreamingResponse(nothing(), media_type="text/event-stream")

    async with serving(web(silent)) as address:
        error = await refusal(Endpoint(binding=Binding.MCP_SSE, url=f"{address}/mcp"), timeout_s=0.5)
    assert isinstance(error, RemoteTimeout)


async def test_no_error_shows_what_may_be_a_secret_in_an_address() -> None:
    async with serving(web(missing)) as address:
        error = await refusal(at(f"{address.replace('//', '//ada:pa55@')}/mcp?token=s3cret"))
    assert "pa55" not in str(error)
    assert "s3cret" not in str(error)


async def test_a_server_that_breaks_off_in_the_middle_fails_that_call_alone() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")

    async def break_off(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")

    error: AdapterError | None = None
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, break_off)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        error = await refusal(at(f"http://127.0.0.1:{port}/mcp"))
        tasks.cancel_scope.cancel()
    assert isinstance(error, RemoteUnavailable)
    assert "broke off" in str(error)


SERVER = """
import json, sys
def say(message): print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
print("Welcome to the server")  # a banner, as careless servers print
for line in sys.stdin:
    request = json.loads(line)
    method, number, params = request["method"], request.get("id"), request.get("params", {})
    if method == "initialize":
        say({"id": number, "result": {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}},
             "serverInfo": {"name": "raw", "version": "0"}}})
    elif method == "tools/list":
        say({"id": number, "result": {"tools": LISTED}})
    elif method == "tools/call":
        say({"id": number, "result": CALLED})
    elif number is not None:
        say({"id": number, "error": {"code": -32601, "message": "no " + method}})
"""


def raw(*, listed: Any = None, called: Any = None) -> Endpoint:
    """Return a hand-written server of 2024-11-05 that answers exactly so."""
    return script(SERVER.replace("LISTED", repr(listed)).replace("CALLED", repr(called)))


async def test_what_a_definition_has_that_we_do_not_know_is_kept() -> None:
    tool = {
        "name": "look",
        "inputSchema": {"type": "object"},
        "x-price": {"eur": 3, "note": None},
        "annotations": {"title": "Look", "x-hint": [1]},
    }
    card = await McpAdapter().describe(raw(listed=[tool]))
    assert (card.name, card.capabilities[0].title) == ("raw", "Look")
    assert card.capabilities[0].raw == tool


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("nothing", "has no list of tools"),
        (["look"], "tools hold str where a definition is expected"),
        ([{"description": "no name"}], "lists a tool without a name"),
    ],
)
async def test_a_list_that_is_none_is_a_violation(listed: Any, words: str) -> None:
    error = await refusal(raw(listed=listed))
    assert isinstance(error, ProtocolViolation)
    assert words in str(error)


@pytest.mark.parametrize(
    ("called", "words"),
    [
        ({"content": "text"}, "not a list of blocks"),
        ({"content": [{"type": "text"}]}, "of type 'text' has no text"),
        ({"content": [{"type": "image", "data": "***", "mimeType": "image/png"}]}, "is not base64"),
        ({"content": [], "resultType": "task"}, "a task that has no id"),
        ({"content": [], "resultType": "dream"}, "a result of type 'dream', which nobody asked for"),
    ],
)
async def test_a_result_of_no_known_shape_is_a_violation(called: Any, words: str) -> None:
    async with McpAdapter().connect(raw(called=called), card=AgentCard(name="raw"), label="raw") as connection:
        with pytest.raises(ProtocolViolation) as raised:
            await connection.call(look(), ignore)
    assert words in str(raised.value)


async def test_a_content_type_of_the_future_becomes_data_and_the_result_is_kept() -> None:
    called = {"content": [{"type": "hologram", "depth": 3}], "x-more": None}
    async with McpAdapter().connect(raw(called=called), card=AgentCard(name="raw"), label="raw") as connection:
        outcome = await connection.call(look(), ignore)
    assert isinstance(outcome, Completed)
    assert outcome.raw == called


async def test_a_schema_that_points_into_the_network_is_not_followed() -> None:
    schema: JsonObject = {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    capability = Capability(name="look", kind=Kind.TOOL, input_schema=schema)
    card = AgentCard(name="raw", capabilities=(capability,))
    endpoint = raw(called={"content": [{"type": "text", "text": "seen"}]})
    async with McpAdapter().connect(endpoint, card=card, label="raw") as connection:
        outcome = await connection.call(look({"a": 1}), ignore)
    assert isinstance(outcome, Completed)
    assert text_of(outcome.parts) == "seen"


async def test_a_server_that_keeps_dying_is_not_started_again_at_once() -> None:
    endpoint = script("raise SystemExit(9)")
    async with McpAdapter().connect(endpoint, card=AgentCard(name="x"), label="dying") as connection:
        errors = [await failure(connection) for _ in range(4)]
    assert all(isinstance(error, RemoteUnavailable) for error in errors)
    assert "exited with status 9" in str(errors[0])
    assert "next tried in" in str(errors[-1])


async def test_the_process_and_its_children_end_with_the_connection(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    source = (
        "import os, runpy, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        f"sys.argv = ['everything']\nrunpy.run_path({str(EVERYTHING)!r}, run_name='__main__')\n"
    )
    async with McpAdapter().connect(script(source), card=AgentCard(name="x"), label="family") as connection:
        outcome = await connection.call(look({"a": 1, "b": 1}, name="add"), ignore)
        assert isinstance(outcome, Completed)
    parent, child = map(int, pids.read_text().split())
    assert not running(parent)
    with anyio.fail_after(5):
        while running(child):  # noqa: ASYNC110  # it has been killed; the kernel takes a moment, and tells nobody
            await anyio.sleep(0.02)


async def test_a_process_that_ignores_the_end_is_killed() -> None:
    source = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "import json, os, sys\nerror = {'code': 1, 'message': str(os.getpid())}\n"
        "for line in (sys.stdin.readline(), sys.stdin.readline()):\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'id': json.loads(line)['id'], 'error': error}), flush=True)\n"
        "time.sleep(600)\n"
    )
    error = await refusal(script(source))
    assert isinstance(error, RemoteRefused)
    assert not running(int(error.why))


async def test_a_servers_environment_holds_no_secret_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERHUB_SECRET", "s3cret")
    source = "import json, os, sys; print(json.dumps(sorted(os.environ)), file=sys.stderr); sys.exit(1)"
    endpoint = Endpoint(binding=Binding.MCP_STDIO, command=(sys.executable, "-c", source), env={"GIVEN": "${FROM_HUB}"})
    with pytest.raises(RemoteUnavailable) as raised:
        await McpAdapter(env={"FROM_HUB": "x"}).describe(endpoint)
    names = json.loads(str(raised.value).splitlines()[-1])
    assert "GIVEN" in names
    assert "INTERHUB_SECRET" not in names


async def test_a_secret_that_a_server_prints_is_not_told_on() -> None:
    source = "import os, sys; sys.exit('cannot log in with ' + os.environ['TOKEN'])"
    endpoint = Endpoint(binding=Binding.MCP_STDIO, command=(sys.executable, "-c", source), env={"TOKEN": "${FROM_HUB}"})
    with pytest.raises(RemoteUnavailable, match=r"cannot log in with \(hidden\)") as raised:
        await McpAdapter(env={"FROM_HUB": "sk-0123456789"}).describe(endpoint)
    assert "0123456789" not in str(raised.value)


async def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadEndpoint, match="as a header") as raised:
        await McpAdapter().describe(at("http://me:pa55w0rd@127.0.0.1:9/mcp"))
    assert "pa55w0rd" not in str(raised.value)


async def test_an_endless_line_is_read_at_the_speed_it_comes() -> None:
    source = (
        "import sys; line = b'x' * (1 << 20)\n"
        "for _ in range(66): sys.stdout.buffer.write(line)\n"
        "sys.stdout.buffer.write(b'\\n'); sys.stdout.flush(); sys.stdin.read()"
    )
    with anyio.fail_after(8), pytest.raises(ProtocolViolation, match="what is not MCP"):
        await McpAdapter(startup_timeout_s=20).describe(script(source))


async def test_the_adapter_starts_without_importing_the_sdk() -> None:
    source = "import sys; import interhub.adapters.mcp.adapter as m; m.McpAdapter(); print('mcp' in sys.modules)"
    done = await anyio.run_process([sys.executable, "-c", source])
    assert done.stdout.decode().strip() == "False"


async def test_a_server_that_was_killed_is_started_again() -> None:
    async with McpAdapter().connect(program(EVERYTHING), card=AgentCard(name="x"), label="x") as connection:
        await connection.call(look({"a": 1, "b": 1}, name="add"), ignore)
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        with anyio.fail_after(20):
            while True:
                try:
                    outcome = await connection.call(look({"a": 1, "b": 1}, name="add"), ignore)
                except RemoteUnavailable:
                    await anyio.sleep(0.05)  # the back-off, which says when it ends
                else:
                    break
    assert isinstance(outcome, Completed)


def look(arguments: dict[str, Any] | None = None, *, name: str = "look") -> Call:
    principal = Principal(subject="ada")
    return Call(capability=name, kind=Kind.TOOL, arguments=arguments or {}, principal=principal, idempotency_key="k")


async def failure(connection: Connection) -> AdapterError:
    with pytest.raises(AdapterError) as raised:
        await connection.call(look(), ignore)
    return raised.value


def running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children() -> list[int]:
    """Return the everything servers that this process started."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            line = (stat.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == os.getpid() and str(EVERYTHING).encode() in line:
            found.append(int(stat.parent.name))
    return found
