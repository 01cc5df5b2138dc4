"""An MCP server with one of everything, over HTTP or stdio, in both protocol eras.

    python examples/everything_server.py                 # stdio
    python examples/everything_server.py --http 8900     # http://127.0.0.1:8900/mcp
    interhub agents add -- python examples/everything_server.py

The tools, prompts and resources whose names begin with `test` are those that the MCP conformance suite calls
(`@modelcontextprotocol/conformance`), so that it can be run against this server, and against a hub in front of it. The
others show what an agent meets in the wild: a slow tool, one that asks a person, one that tells what it was sent.
"""

import argparse
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as t
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.shared.message import ServerMessageMetadata

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="

Context = ServerRequestContext[Any, Any]
Result = dict[str, Any]
Tool = Callable[[Context, t.CallToolRequestParams], Awaitable[Result]]
NAME_FORM = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
OK_FORM = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}

bus = InMemorySubscriptionBus()
sessions: dict[int, Any] = {}
"""Sessions of the older era that are open, to tell them of changes."""
subscribed: set[str] = set()
tools: dict[str, tuple[t.Tool, Tool]] = {}
page_size = 100


def blocks(*content: Result, **more: Any) -> Result:
    return {"content": list(content), "resultType": "complete", **more}


def text(said: str, **more: Any) -> Result:
    return blocks({"type": "text", "text": said}, **more)


def ask(**requests: Result) -> Result:
    """An interim result (2026-07-28): ask me again with these answers."""
    state = requests.pop("state", None)
    found: Result = {"resultType": "input_required", "inputRequests": requests}
    return found if state is None else {**found, "requestState": state}


def form(message: str, schema: Result = NAME_FORM) -> Result:
    return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}}


def sample(prompt: str, tokens: int = 100) -> Result:
    messages = [{"role": "user", "content": {"type": "text", "text": prompt}}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": tokens}}


ROOTS: Result = {"method": "roots/list"}


def answers(params: Any) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for key, answer in (params.input_responses or {}).items():
        given[key] = answer.model_dump(by_alias=True, exclude_none=True) if hasattr(answer, "model_dump") else answer
    return given


def tool(description: str, schema: Result | None = None, **more: Any) -> Callable[[Tool], Tool]:
    """Offer a function as a tool of its own name."""

    def offer(function: Tool) -> Tool:
        name = function.__name__
        definition = {"name": name, "description": description, "inputSchema": schema or {"type": "object"}, **more}
        tools[name] = (t.Tool.model_validate(definition), function)
        return function

    return offer


def takes(**properties: Result) -> Result:
    return {"type": "object", "properties": properties, "required": list(properties)}


STRING: Result = {"type": "string"}

# Content


@tool("Answers with text")
async def test_simple_text(ctx: Context, params: t.CallToolRequestParams) -> Result:
    return text("This is a simple text response for testing.")


@tool("Answers with an image")
async def test_image_content(ctx: Context, params: t.CallToolRequestParams) -> Result:
    return blocks({"type": "image", "data": PNG, "mimeType": "image/png"})


@tool("Answers with sound")
async def test_audio_content(ctx: Context, params: t.CallToolRequestParams) -> Result:
    return blocks({"type": "audio", "data": WAV, "mimeType": "audio/wav"})


@tool("Answers with a resource inside the result")
async def test_embedded_resource(ctx: Context, params: t.CallToolRequestParams) -> Result:
    resource = {"uri": "test://embedded-resource", "mimeType": "text/plain", "text": "This is an embedded resource."}
    return blocks({"type": "resource", "resource": resource})


@tool("Answers with text, an image and a resource")
async def test_multiple_content_types(ctx: Context, params: t.CallToolRequestParams) -> Result:
    resource = {"uri": "test://mixed-content-resource", "mimeType": "application/json", "text": '{"test":"data"}'}
    return blocks(
        {"type": "text", "text": "Multiple content types test:"},
        {"type": "image", "data": PNG, "mimeType": "image/png"},
        {"type": "resource", "resource": resource},
    )


@tool("Answers with a link to a resource")
async def link(ctx: Context, params: t.CallToolRequestParams) -> Result:
    return blocks(
        {"type": "resource_link", "uri": "test://static-text", "name": "static-text", "mimeType": "text/plain"}
    )


@tool("Fails, and says so")
async def test_error_handling(ctx: Context, params: t.CallToolRequestParams) -> Result:
    return text("This tool intentionally returns an error for testing", isError=True)


@tool(
    "Adds two numbers",
    takes(a={"type": "integer"}, b={"type": "integer"}),
    outputSchema=takes(sum={"type": "integer"}),
)
async def add(ctx: Context, params: t.CallToolRequestParams) -> Result:
    given = params.arguments or {}
    if not all(isinstance(given.get(name), int) for name in ("a", "b")):
        return text("a and b must be integers", isError=True)
    total = given["a"] + given["b"]
    return text(str(total), structuredContent={"sum": total})


@tool("Tells what it was sent: its arguments, and the request's _meta")
async def reflect(ctx: Context, params: t.CallToolRequestParams) -> Result:
    meta = dict((ctx.params or {}).get("_meta") or {})
    headers = dict(ctx.request.headers) if ctx.request is not None else {}
    seen = {"arguments": params.arguments, "meta": meta, "headers": headers, "version": ctx.protocol_version}
    return text(json.dumps(seen), structuredContent=seen)


# While it lasts


async def say(ctx: Context, line: str) -> None:
    params = t.LoggingMessageNotificationParams(level="info", data=line)
    wanted = ctx.protocol_version != "2026-07-28" or (ctx.meta or {}).get(t.LOG_LEVEL_META_KEY) is not None
    if wanted:
        await ctx.session.send_notification(t.LoggingMessageNotification(params=params), ctx.request_id)


@tool("Writes three lines to its log")
async def test_tool_with_logging(ctx: Context, params: t.CallToolRequestParams) -> Result:
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await say(ctx, line)
        await anyio.sleep(0.05)
    return text("Tool with logging executed successfully")


@tool("Writes a line to its log, if it was asked for one")
async def test_logging_tool(ctx: Context, params: t.CallToolRequestParams) -> Result:
    await say(ctx, "A line of the log")
    return text("done")


@tool("Reports its progress")
async def test_tool_with_progress(ctx: Context, params: t.CallToolRequestParams) -> Result:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100, f"Completed step {done} of 100")
        await anyio.sleep(0.05)
    return text("done")


@tool(
    "Takes its time: reports once that it has begun, and ends after so many seconds", takes(seconds={"type": "number"})
)
async def slow(ctx: Context, params: t.CallToolRequestParams) -> Result:
    await ctx.session.report_progress(0, 1, "begun")
    try:
        await anyio.sleep((params.arguments or {})["seconds"])
    except anyio.get_cancelled_exc_class():
        cancelled.append(str(ctx.request_id))
        raise
    return text("slept")


cancelled: list[str] = []


@tool("Tells how many calls of `slow` were cancelled")
async def count_cancelled(ctx: Context, params: t.CallToolRequestParams) -> Result:
    return text(str(len(cancelled)), structuredContent={"cancelled": len(cancelled)})


@tool("Ends the server's process in the middle of the call, with a word on its error output")
async def crash(ctx: Context, params: t.CallToolRequestParams) -> Result:
    import os
    import sys

    print("crashing as I was told", file=sys.stderr, flush=True)
    os._exit(3)


@tool("Closes the stream in the middle of the call")
async def test_reconnection(ctx: Context, params: t.CallToolRequestParams) -> Result:
    await say(ctx, "Before disconnect")
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await anyio.sleep(0.2)
    await say(ctx, "After reconnect")
    return text("Reconnection test completed")


# Asking the client in the middle of a call (until 2025-11-25)


async def request(ctx: Context, asked: Any, answer: type[Any]) -> Any:
    return await ctx.session.send_request(asked, answer, None, ServerMessageMetadata(related_request_id=ctx.request_id))


async def elicit(ctx: Context, message: str, schema: Result) -> t.ElicitResult:
    asked = t.ElicitRequest(params=t.ElicitRequestFormParams(message=message, requested_schema=schema))
    found = await request(ctx, asked, t.ElicitResult)
    assert isinstance(found, t.ElicitResult)
    return found


async def elicited(ctx: Context, message: str, schema: Result, words: str) -> Result:
    try:
        found = await elicit(ctx, message, schema)
    except MCPError as error:
        return text(f"Elicitation not supported or error: {error.message}")
    return text(f"{words}: action={found.action}, content={json.dumps(found.content or {})}")


@tool("Asks the client's model", takes(prompt=STRING))
async def test_sampling(ctx: Context, params: t.CallToolRequestParams) -> Result:
    wanted = t.CreateMessageRequest.model_validate(sample((params.arguments or {})["prompt"]))
    try:
        found = await request(ctx, wanted, t.CreateMessageResult)
    except MCPError as error:
        return text(f"Sampling not supported or error: {error.message}")
    return text(f"LLM response: {getattr(found.content, 'text', 'No response')}")


@tool("Asks a person", takes(message=STRING))
async def test_elicitation(ctx: Context, params: t.CallToolRequestParams) -> Result:
    schema = takes(response={"type": "string", "description": "User's response"})
    return await elicited(ctx, (params.arguments or {})["message"], schema, "User response")


@tool("Asks a person, with defaults")
async def test_elicitation_sep1034_defaults(ctx: Context, params: t.CallToolRequestParams) -> Result:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            "verified": {"type": "boolean", "default": True},
        },
    }
    return await elicited(ctx, "Please provide user information", schema, "Elicitation result")


@tool("Asks a person to choose, in every way there is")
async def test_elicitation_sep1330_enums(ctx: Context, params: t.CallToolRequestParams) -> Result:
    def titled(**options: str) -> list[Result]:
        return [{"const": key, "title": title} for key, title in options.items()]

    sizes = {"enum": ["small", "medium", "large"], "enumNames": ["Small Size", "Medium Size", "Large Size"]}
    schema = takes(
        untitledSingle={"type": "string", "enum": ["active", "inactive", "pending"]},
        titledSingle={
            "type": "string",
            "oneOf": titled(low="Low Priority", medium="Medium Priority", high="High Priority"),
        },
        untitledMulti={"type": "array", "items": {"type": "string", "enum": ["read", "write", "execute"]}},
        titledMulti={
            "type": "array",
            "items": {"anyOf": titled(feature="New Feature", bug="Bug Fix", docs="Documentation")},
        },
        legacyEnum={"type": "string", **sizes},
    )
    return await elicited(ctx, "Please choose", schema, "Elicitation completed")


@tool("Asks a person twice, in whichever way the client's era has")
async def order(ctx: Context, params: t.CallToolRequestParams) -> Result:
    if ctx.protocol_version == "2026-07-28":
        given = answers(params)
        if "what" in given:
            state = json.dumps(given["what"].get("content", {}).get("name", "nothing"))
            return ask(sure=form("Are you sure?", OK_FORM), state=state)
        if "sure" in given:
            sure = given["sure"].get("content", {}).get("ok", False)
            return text(f"ordered {json.loads(params.request_state or '')}" if sure else "ordered nothing")
        return ask(what=form("What is it to be?"))
    what = await elicit(ctx, "What is it to be?", NAME_FORM)
    if what.action != "accept":
        return text("ordered nothing")
    sure = await elicit(ctx, "Are you sure?", OK_FORM)
    chosen = (what.content or {}).get("name")
    return text(f"ordered {chosen}" if (sure.content or {}).get("ok") else "ordered nothing")


# Asking by an interim result (2026-07-28)


@tool("Needs a client that has a model")
async def test_missing_capability(ctx: Context, params: t.CallToolRequestParams) -> Result:
    offered = ctx.session.client_capabilities
    if offered is None or offered.sampling is None:
        needed = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(t.MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool requires the client's sampling", needed)
    return text("The client offers sampling.")


@tool("Asks for a name")
async def test_input_required_result_elicitation(ctx: Context, params: t.CallToolRequestParams) -> Result:
    given = answers(params)
    if "user_name" in given:
        return text(f"Hello, {given['user_name'].get('content', {}).get('name', 'stranger')}!")
    return ask(user_name=form("What is your name?"))


@tool("Reports its progress, then asks for a name")
async def test_streaming_elicitation(ctx: Context, params: t.CallToolRequestParams) -> Result:
    await ctx.session.report_progress(1, 2, "about to ask")
    return await test_input_required_result_elicitation(ctx, params)


@tool("Asks the client's model")
async def test_input_required_result_sampling(ctx: Context, params: t.CallToolRequestParams) -> Result:
    given = answers(params)
    if "capital_question" in given:
        return text(f"Model said: {given['capital_question'].get('content', {}).get('text', '?')}")
    return ask(capital_question=sample("What is the capital of France?"))


@tool("Asks which folders there are")
async def test_input_required_result_list_roots(ctx: Context, params: t.CallToolRequestParams) -> Result:
    given = answers(params)
    if "client_roots" in given:
        return text(f"Client exposed {len(given['client_roots'].get('roots', []))} root(s).")
    return ask(client_roots=ROOTS)


@tool("Asks, and gives the client a state to bring back")
async def test_input_required_result_request_state(ctx: Context, params: t.CallToolRequestParams) -> Result:
    if "confirm" in answers(params) and params.request_state == "nonce":
        return text("state-ok: confirmation received")
    return ask(confirm=form("Please confirm", OK_FORM), state="nonce")


@tool("Asks for three things at once")
async def test_input_required_result_multiple_inputs(ctx: Context, params: t.CallToolRequestParams) -> Result:
    if {"user_name", "greeting", "client_roots"} <= answers(params).keys():
        return text("All inputs received.")
    return ask(
        user_name=form("What is your name?"),
        greeting=sample("Generate a greeting", 50),
        client_roots=ROOTS,
        state="all",
    )


@tool("Asks in two rounds")
async def test_input_required_result_multi_round(ctx: Context, params: t.CallToolRequestParams) -> Result:
    given = answers(params)
    state = json.loads(params.request_state) if params.request_state else {"round": 0}
    if state["round"] == 1 and "step1" in given:
        name = given["step1"].get("content", {}).get("name")
        colour = {"type": "object", "properties": {"color": STRING}, "required": ["color"]}
        kept = json.dumps({"round": 2, "name": name})
        return ask(step2=form("Step 2: What is your favorite color?", colour), state=kept)
    if state["round"] == 2 and "step2" in given:
        return text(f"{state['name']} likes {given['step2'].get('content', {}).get('color')}.")
    return ask(step1=form("Step 1: What is your name?"), state=json.dumps({"round": 1}))


@tool("Gives the client a state that must come back as it was")
async def test_input_required_result_tampered_state(ctx: Context, params: t.CallToolRequestParams) -> Result:
    if params.request_state is None:
        return ask(confirm=form("Please confirm", OK_FORM), state="round-1")
    return text(f"state-ok: {params.request_state}")


@tool("Asks only for what the client offers")
async def test_input_required_result_capabilities(ctx: Context, params: t.CallToolRequestParams) -> Result:
    offered = ctx.session.client_capabilities
    wanted: Result = {"state": "capability-gated"}
    if offered is None or offered.sampling is not None:
        wanted["sample"] = sample("Say hello", 50)
    if offered is None or offered.elicitation is not None:
        wanted["ask"] = form("What is your name?")
    return ask(**wanted)


# Schemas


@tool(
    "Takes an argument that is also sent as a header",
    {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
)
async def test_x_mcp_header(ctx: Context, params: t.CallToolRequestParams) -> Result:
    return text(f"region={(params.arguments or {}).get('region', '<none>')}")


@tool(
    "Has a schema with everything that JSON Schema 2020-12 can say",
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {"$anchor": "addressDef", "type": "object", "properties": {"street": STRING, "city": STRING}}
        },
        "properties": {
            "name": STRING,
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": STRING,
            "email": STRING,
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
)
async def json_schema_2020_12_tool(ctx: Context, params: t.CallToolRequestParams) -> Result:
    return text(json.dumps(params.arguments))


# Changes


@tool("Says that the list of tools has changed")
async def test_trigger_tool_change(ctx: Context, params: t.CallToolRequestParams) -> Result:
    await bus.publish(ToolsListChanged())
    for session in list(sessions.values()):
        await session.send_tool_list_changed()
    return text("tool list changed")


@tool("Says that the list of prompts has changed")
async def test_trigger_prompt_change(ctx: Context, params: t.CallToolRequestParams) -> Result:
    await bus.publish(PromptsListChanged())
    for session in list(sessions.values()):
        await session.send_prompt_list_changed()
    return text("prompt list changed")


async def initialized(ctx: Context, params: t.NotificationParams | None) -> None:
    connection = ctx.session._connection  # the SDK has no public place for what lives as long as a session
    sessions[id(connection)] = ctx.session
    connection.exit_stack.callback(sessions.pop, id(connection), None)


# Prompts and resources

PROMPTS: dict[str, tuple[t.Prompt, Callable[[dict[str, str]], list[Result]]]] = {}


def prompt(name: str, description: str, *arguments: str) -> Callable[[Any], Any]:
    def offer(function: Callable[[dict[str, str]], list[Result]]) -> Callable[[dict[str, str]], list[Result]]:
        named = [t.PromptArgument(name=argument, required=True) for argument in arguments]
        PROMPTS[name] = (t.Prompt(name=name, description=description, arguments=named or None), function)
        return function

    return offer


def user(content: Result) -> Result:
    return {"role": "user", "content": content}


@prompt("test_simple_prompt", "A prompt without arguments")
def simple(given: dict[str, str]) -> list[Result]:
    return [user({"type": "text", "text": "This is a simple prompt for testing."})]


@prompt("test_prompt_with_arguments", "A prompt with two arguments", "arg1", "arg2")
def with_arguments(given: dict[str, str]) -> list[Result]:
    return [user({"type": "text", "text": f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"})]


@prompt("test_prompt_with_embedded_resource", "A prompt with a resource in it", "resourceUri")
def with_resource(given: dict[str, str]) -> list[Result]:
    resource = {"uri": given["resourceUri"], "mimeType": "text/plain", "text": "Embedded resource content for testing."}
    return [
        user({"type": "resource", "resource": resource}),
        user({"type": "text", "text": "Please process the embedded resource above."}),
    ]


@prompt("test_prompt_with_image", "A prompt with an image in it")
def with_image(given: dict[str, str]) -> list[Result]:
    return [
        user({"type": "image", "data": PNG, "mimeType": "image/png"}),
        user({"type": "text", "text": "Please analyze the image above."}),
    ]


@prompt("test_input_required_result_prompt", "A prompt that asks for its context")
def with_context(given: dict[str, str]) -> list[Result]:
    return [user({"type": "text", "text": f"Use the following context: {given.get('context', '?')}"})]


RESOURCES = {
    "test://static-text": ("static-text", "text/plain"),
    "test://static-binary": ("static-binary", "image/png"),
    "test://watched-resource": ("watched-resource", "text/plain"),
}


async def list_tools(ctx: Context, params: t.PaginatedRequestParams | None) -> t.ListToolsResult:
    names = sorted(tools)
    start = int(params.cursor) if params is not None and params.cursor else 0
    listed = [tools[name][0] for name in names[start : start + page_size]]
    following = str(start + page_size) if start + page_size < len(names) else None
    return t.ListToolsResult(tools=listed, next_cursor=following, ttl_ms=1000, cache_scope="public")


async def call_tool(ctx: Context, params: t.CallToolRequestParams) -> Result:
    if params.name not in tools:
        raise MCPError(t.INVALID_PARAMS, f"unknown tool {params.name!r}")
    return await tools[params.name][1](ctx, params)


async def list_prompts(ctx: Context, params: t.PaginatedRequestParams | None) -> t.ListPromptsResult:
    return t.ListPromptsResult(
        prompts=[definition for definition, _ in PROMPTS.values()], ttl_ms=1000, cache_scope="public"
    )


async def get_prompt(ctx: Context, params: t.GetPromptRequestParams) -> Result:
    if params.name not in PROMPTS:
        raise MCPError(t.INVALID_PARAMS, f"unknown prompt {params.name!r}")
    given: dict[str, str] = dict(params.arguments or {})
    if params.name == "test_input_required_result_prompt":
        answer = answers(params).get("user_context")
        if answer is None:
            context = {"type": "object", "properties": {"context": STRING}, "required": ["context"]}
            return ask(user_context=form("What context should the prompt use?", context))
        given["context"] = answer.get("content", {}).get("context", "?")
    try:
        return {"messages": PROMPTS[params.name][1](given), "resultType": "complete"}
    except KeyError as missing:
        raise MCPError(t.INVALID_PARAMS, f"the prompt needs the argument {missing}") from None


async def list_resources(ctx: Context, params: t.PaginatedRequestParams | None) -> t.ListResourcesResult:
    listed = [t.Resource(uri=uri, name=name, mime_type=kind) for uri, (name, kind) in RESOURCES.items()]
    return t.ListResourcesResult(resources=listed, ttl_ms=1000, cache_scope="public")


async def list_templates(ctx: Context, params: t.PaginatedRequestParams | None) -> t.ListResourceTemplatesResult:
    template = t.ResourceTemplate(
        uri_template="test://template/{id}/data", name="template", mime_type="application/json"
    )
    return t.ListResourceTemplatesResult(resource_templates=[template], ttl_ms=1000, cache_scope="public")


async def read_resource(ctx: Context, params: t.ReadResourceRequestParams) -> Result:
    uri = str(params.uri)
    content: Result
    if uri == "test://static-binary":
        content = {"blob": PNG}
    elif uri == "test://static-text":
        content = {"text": "This is the content of the static text resource."}
    elif uri == "test://watched-resource":
        content = {"text": "Watched resource content"}
    elif uri.startswith("test://template/") and uri.endswith("/data"):
        name = uri.removeprefix("test://template/").removesuffix("/data")
        content = {"text": json.dumps({"id": name, "templateTest": True, "data": f"Data for ID: {name}"})}
    else:
        raise MCPError(t.INVALID_PARAMS, "Resource not found", {"uri": uri})
    kind = RESOURCES.get(uri, ("", "application/json"))[1]
    return {
        "contents": [{"uri": uri, "mimeType": kind, **content}],
        "resultType": "complete",
        "ttlMs": 1000,
        "cacheScope": "public",
    }


async def complete(ctx: Context, params: t.CompleteRequestParams) -> t.CompleteResult:
    return t.CompleteResult(completion=t.Completion(values=[], total=0, has_more=False))


async def subscribe(ctx: Context, params: t.SubscribeRequestParams) -> t.EmptyResult:
    subscribed.add(str(params.uri))
    return t.EmptyResult()


async def unsubscribe(ctx: Context, params: t.UnsubscribeRequestParams) -> t.EmptyResult:
    subscribed.discard(str(params.uri))
    return t.EmptyResult()


async def set_level(ctx: Context, params: t.SetLevelRequestParams) -> t.EmptyResult:
    return t.EmptyResult()


class Everything(Server[Any]):
    """Says in the handshake too that its lists change, which the SDK's HTTP server leaves out."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> Any:
        changes = notification_options or NotificationOptions(True, True, True)
        return super().create_initialization_options(changes, experimental_capabilities, extensions)


class Events(EventStore):
    """Events kept in memory, so that a client can take a broken stream up again."""

    def __init__(self) -> None:
        self._events: list[tuple[StreamId, Any]] = []

    async def store_event(self, stream_id: StreamId, message: Any) -> EventId:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        last = int(last_event_id)
        if not 0 < last <= len(self._events):
            return None
        stream = self._events[last - 1][0]
        for number, (owner, message) in enumerate(self._events[last:], last + 1):
            if owner == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def build(era: str = "both") -> Everything:
    server = Everything(
        "everything",
        version="1.0",
        instructions="Everything an MCP server can do, to try clients and hubs with.",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_completion=complete,
        on_subscriptions_listen=ListenHandler(bus),
        get_tool_input_schema=lambda name: tools[name][0].input_schema if name in tools else None,
    )
    server.add_request_handler("resources/subscribe", t.SubscribeRequestParams, subscribe)
    server.add_request_handler("resources/unsubscribe", t.UnsubscribeRequestParams, unsubscribe)
    server.add_request_handler("logging/setLevel", t.SetLevelRequestParams, set_level)
    server.add_notification_handler("notifications/initialized", t.NotificationParams, initialized)
    key = base64.b64encode(b"examples/everything_server.py: no secret is kept by this").ljust(32)
    server.middleware.append(RequestStateBoundary(RequestStateSecurity(keys=[key]), default_audience="everything"))
    if era != "both":
        server.middleware.insert(0, only(era))
    return server


def only(era: str) -> Any:
    """Refuse the other era, as a server does that was built before or after it."""

    async def check(ctx: Context, call_next: Any) -> Any:
        modern = ctx.protocol_version == "2026-07-28"
        if era == "legacy" and (modern or ctx.method == "server/discover"):
            raise MCPError(t.METHOD_NOT_FOUND, "Method not found")
        if era == "modern" and not modern:
            supported = {"supported": ["2026-07-28"], "requested": ctx.protocol_version}
            raise MCPError(t.UNSUPPORTED_PROTOCOL_VERSION, "only 2026-07-28 is spoken here", supported)
        return await call_next(ctx)

    return check


async def over_stdio(server: Everything, era: str) -> None:
    async with stdio_server() as (read, write):
        if era == "legacy":
            return await serve_loop(server, read, write, lifespan_state={})
        await server.run(read, write, server.create_initialization_options())


def main() -> None:
    parser = argparse.ArgumentParser(description="An MCP server with one of everything.")
    parser.add_argument(
        "--http", type=int, metavar="PORT", help="serve on http://127.0.0.1:PORT/mcp; 0 takes a free port"
    )
    parser.add_argument("--era", choices=("both", "legacy", "modern"), default="both", help="which eras to speak")
    parser.add_argument("--page-size", type=int, default=page_size, help="how many tools one page of the list holds")
    given = parser.parse_args()
    globals()["page_size"] = given.page_size
    server = build(given.era)
    if given.http is None:
        anyio.run(over_stdio, server, given.era)
        return
    import socket

    import uvicorn

    app = server.streamable_http_app(event_store=Events(), retry_interval=100)
    listening = socket.create_server(("127.0.0.1", given.http))
    print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", http="h11")).run([listening])


if __name__ == "__main__":
    main()
