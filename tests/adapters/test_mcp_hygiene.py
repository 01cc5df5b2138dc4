"""What MCP servers send is held against what they promised, and against bounds; the error names the server."""

import json
from typing import Any

import anyio
import orjson
import pytest

from interhub.adapters import Call, Completed, Outcome, Principal, ProtocolViolation, RemoteRefused, ignore, text_of
from interhub.adapters.mcp import McpAdapter
from interhub.adapters.mcp.catalogue import MAX_BYTES
from interhub.adapters.schemas import MAX_STEPS, ArgumentCheck, ResultCheck
from interhub.agent_cards import AgentCard, Capability, Endpoint, Json, JsonObject, Kind
from tests.support.mcp_servers import script

pytestmark = pytest.mark.anyio

NUMBER: JsonObject = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

SERVER = """
import json, sys
def say(message): print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    method, number, params = request["method"], request.get("id"), request.get("params", {})
    if method == "initialize":
        say({"id": number, "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
             "serverInfo": {"name": "raw", "version": "0"}}})
    elif method == "tools/list":
        say({"id": number, "result": LISTED})
    elif method == "tools/call":
        say({"id": number, "result": CALLED})
    elif number is not None:
        say({"id": number, "error": {"code": -32601, "message": "no " + method}})
"""


def server(*, listed: str = "{'tools': []}", called: Any = None) -> Endpoint:
    """A server whose list is an expression (of `params`), and whose tools all give the same result."""
    source = SERVER.replace("LISTED", listed).replace("CALLED", f"json.loads({json.dumps(called)!r})")
    return script(source)


async def use(called: Any, output: JsonObject | None = NUMBER) -> Outcome:
    tool = Capability(name="count", kind=Kind.TOOL, input_schema={"type": "object"}, output_schema=output)
    card = AgentCard(name="raw", capabilities=(tool,))
    call = Call(capability="count", kind=Kind.TOOL, principal=Principal(subject="ann"), idempotency_key="k")
    with anyio.fail_after(15):
        async with McpAdapter().connect(server(called=called), card=card, label="abacus") as connection:
            return await connection.call(call, ignore)


async def test_a_result_that_fits_its_promise_is_passed_on() -> None:
    outcome = await use({"content": [], "structuredContent": {"n": 3}})
    assert isinstance(outcome, Completed)
    assert outcome.structured == {"n": 3}


@pytest.mark.parametrize(
    ("called", "words"),
    [
        ({"content": [], "structuredContent": {"n": "three"}}, "n: 'three' is not of type 'integer'"),
        ({"content": [], "structuredContent": {}}, "result: 'n' is a required property"),
        ({"content": [{"type": "text", "text": "3"}]}, "it has no structured content"),
    ],
)
async def test_a_result_that_breaks_its_promise_names_the_server_the_tool_and_the_place(
    called: Any, words: str
) -> None:
    with pytest.raises(ProtocolViolation) as raised:
        await use(called)
    assert str(raised.value).startswith("abacus broke its protocol: the result of count does not fit")
    assert str(raised.value).endswith(words)


async def test_an_error_of_a_tool_is_told_as_it_is_whatever_the_tool_promised() -> None:
    with pytest.raises(RemoteRefused, match="out of beads"):
        await use({"content": [{"type": "text", "text": "out of beads"}], "isError": True})


async def test_a_promise_that_cannot_be_checked_lets_the_result_pass() -> None:
    remote: JsonObject = {"type": "object", "properties": {"n": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    outcome = await use({"content": [{"type": "text", "text": "3"}], "structuredContent": {"n": "x"}}, remote)
    assert isinstance(outcome, Completed)
    assert text_of(outcome.parts) == "3"


async def test_lists_without_end_or_measure_are_refused() -> None:
    tool = "{'name': str(n), 'inputSchema': {'type': 'object'}, 'description': 'x' * 1000}"
    huge = f"{{'tools': [{tool} for n in range({MAX_BYTES // 1000})]}}"
    with anyio.fail_after(30), pytest.raises(ProtocolViolation, match="its lists hold more than 16 MiB"):
        await McpAdapter().describe(server(listed=huge))
    endless = "{'tools': [], 'nextCursor': str(int(params.get('cursor', 0)) + 1)}"
    with anyio.fail_after(30), pytest.raises(ProtocolViolation, match="has no end"):
        await McpAdapter().describe(server(listed=endless))


def nested(depth: int) -> Json:
    value: Json = {}
    for _ in range(depth):
        value = {"child": value}
    return value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#"}, {}),
        ({"type": "object", "properties": {"child": {"$ref": "#"}}}, nested(100_000)),
        ({"type": "array", "items": {"anyOf": [{"const": n} for n in range(500)]}}, list(range(2000))),
        ({"type": "array", "items": {"type": "string", "pattern": "^(a+)+$"}}, ["a" * 50 + "!"] * (MAX_STEPS + 1)),
    ],
    ids=["refers to itself", "deep", "wide", "long"],
)
def test_checking_is_bounded_and_what_is_beyond_the_bounds_is_left_alone(schema: JsonObject, value: Json) -> None:
    assert ResultCheck(schema, label="t").problem(value) == ""


def test_a_regular_expression_that_is_a_book_is_not_run() -> None:
    schema: JsonObject = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(" * 999 + ")" * 1999}}}
    assert ArgumentCheck(schema, label="t").problems({"a": "x"}) == ""


def test_within_the_bounds_a_large_value_is_checked() -> None:
    schema: JsonObject = {"type": "array", "items": {"type": "integer"}}
    value: list[Json] = [*range(10_000), "x"]
    assert ResultCheck(schema, label="t").problem(value) == "[10000]: 'x' is not of type 'integer'"
    assert orjson.dumps(value)
