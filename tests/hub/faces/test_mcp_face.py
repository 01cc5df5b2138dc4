"""The hub as an MCP server, asked by the SDK's own client over HTTP, in both eras."""

from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from interhub.adapters import Completed, Principal, Progress, RawPart, TextPart, UrlPart
from interhub.adapters.schemas import problems_of
from interhub.adapters.testing import ScriptedAgent, Turn, answer, question, refused
from interhub.agent_cards import Capability, JsonObject, Kind
from interhub.hub.discovery import FromDocument
from interhub.hub.faces.mcp.runs import RUN_SCHEMA
from tests.support.mcp_site import OWN, Person, add, client, fields, mcp_site, text

pytestmark = pytest.mark.anyio

ADMIN = Principal(subject="admin")
MODES = ["auto", "2026-07-28", "legacy"]
ERAS = ["2026-07-28", "legacy"]
NUMBER: JsonObject = {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}


def writer() -> ScriptedAgent:
    poem = Turn(updates=(Progress(text="thinking"), Progress(text="typing")), end=answer("a poem"))
    return ScriptedAgent("writer").on("write", poem, description="Writes poems")


@pytest.mark.parametrize("mode", MODES)
async def test_tools_are_listed_and_called_in_every_mode(mode: str) -> None:
    async with mcp_site(writer()) as site, client(site.url, mode) as hub:
        listed = await hub.list_tools()
        assert [tool.name for tool in listed.tools] == [*OWN, "writer__write"]
        result = await hub.call_tool("writer__write", {"message": "a poem, please"})
        assert (text(result), fields(result)) == ("a poem", {"answer": "a poem"})


@pytest.mark.parametrize("mode", ERAS)
async def test_a_goal_is_delegated_with_progress_and_tells_who_did_it(mode: str) -> None:
    person = Person()
    async with mcp_site(writer()) as site, client(site.url, mode) as hub:
        result = await hub.call_tool("delegate", {"goal": "count 2"}, progress_callback=person.hear)
    run = fields(result)
    assert (run["state"], run["answer"]) == ("completed", "counted to 2")
    assert run["steps"] == [{**run["steps"][0], "step": "work", "agent": "twin", "state": "completed"}]
    assert run["artifacts"] == [{"artifact_id": "numbers", "name": "numbers", "text": "0 \n1 "}]
    assert "work (twin/count): counted 1" in person.heard
    assert person.heard[-1] == "completed"
    assert person.numbers == sorted(set(person.numbers))
    assert str(run["run_id"]) in text(result)


@pytest.mark.parametrize("mode", ERAS)
async def test_a_question_of_a_run_is_put_to_the_person_and_the_call_goes_on(mode: str) -> None:
    person = Person(answers={"colour": "blue"})
    async with mcp_site() as site, client(site.url, mode, person) as hub:
        result = await hub.call_tool("delegate", {"goal": "ask which colour"})
    assert (fields(result)["state"], fields(result)["data"]) == ("completed", {"colour": "blue"})
    assert len(person.asked) == 1


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_that_cannot_be_asked_gets_the_question_and_answers_with_a_tool(mode: str) -> None:
    async with mcp_site() as site, client(site.url, mode) as hub:
        asked = fields(await hub.call_tool("delegate", {"goal": "ask which colour"}))
        assert asked["state"] == "input_required"
        assert "answer" in str(asked["next"])
        (open_question,) = asked["questions"]
        arguments = {"run_id": asked["run_id"], "question_id": open_question["question_id"], "answer": "green"}
        await hub.call_tool("answer", arguments)
        done = fields(await hub.call_tool("run_result", {"run_id": asked["run_id"]}))
    assert done["state"] == "completed"
    assert "green" in str(done["answer"])


@pytest.mark.parametrize("mode", ERAS)
async def test_a_dismissed_question_stays_open_in_the_result(mode: str) -> None:
    async with mcp_site() as site, client(site.url, mode, Person(action="cancel")) as hub:
        run = fields(await hub.call_tool("delegate", {"goal": "ask which colour"}))
    assert run["state"] == "input_required"


@pytest.mark.parametrize("mode", ERAS)
async def test_a_declined_question_is_declined_in_the_run(mode: str) -> None:
    async with mcp_site() as site, client(site.url, mode, Person(action="decline")) as hub:
        run = fields(await hub.call_tool("delegate", {"goal": "ask which colour"}))
    assert run["answer"] == "no colour then"


async def test_a_question_answered_elsewhere_ends_the_legacy_clients_form() -> None:
    shown = anyio.Event()

    class Slow(Person):
        async def elicit(self, context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
            shown.set()
            await anyio.sleep_forever()
            raise AssertionError

    results: list[dict[str, Any]] = []
    async with mcp_site() as site, client(site.url, "legacy", Slow()) as slow, client(site.url, "legacy") as other:

        async def delegate() -> None:
            results.append(fields(await slow.call_tool("delegate", {"goal": "ask which colour"})))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(delegate)
                await shown.wait()
                (run,) = await site.hub.runs(Principal(subject="ann"))
                run_id = run.id
                await other.call_tool("answer", {"run_id": run_id, "answer": "red"})
    assert results[0]["state"] == "completed"


@pytest.mark.parametrize("mode", ERAS)
async def test_delegate_answers_with_the_run_id_when_its_time_is_up(mode: str) -> None:
    async with mcp_site() as site, client(site.url, mode) as hub:
        at_once = fields(await hub.call_tool("delegate", {"goal": "hold", "wait_s": 0}))
        assert at_once["state"] in ("submitted", "working")
        assert "run_result" in str(at_once["next"])
        status = fields(await hub.call_tool("run_status", {"run_id": at_once["run_id"]}))
        assert status["state"] == "working"
        site.supervisor.release(str(at_once["run_id"]))
        done = fields(await hub.call_tool("run_result", {"run_id": at_once["run_id"]}))
        assert done["answer"] == "released"


async def test_a_client_that_hangs_up_does_not_stop_its_run() -> None:
    async with mcp_site() as site:
        with anyio.move_on_after(0.5):
            async with client(site.url, "2026-07-28") as hub:
                await hub.call_tool("delegate", {"goal": "hold"})
        (run,) = await site.hub.runs(Principal(subject="ann"))
        run_id = run.id
        async with client(site.url, "2026-07-28") as hub:
            site.supervisor.release(run_id)
            assert fields(await hub.call_tool("run_result", {"run_id": run_id}))["answer"] == "released"


@pytest.mark.parametrize("mode", ERAS)
async def test_a_run_is_canceled_once_and_canceling_again_says_the_same(mode: str) -> None:
    async with mcp_site() as site, client(site.url, mode) as hub:
        run = fields(await hub.call_tool("delegate", {"goal": "hold", "wait_s": 0}))
        for _ in range(2):
            canceled = await hub.call_tool("run_cancel", {"run_id": run["run_id"]})
            assert fields(canceled)["state"] == "canceled"


@pytest.mark.parametrize("mode", ERAS)
async def test_a_failed_run_is_an_error_that_says_why(mode: str) -> None:
    async with mcp_site() as site, client(site.url, mode) as hub:
        result = await hub.call_tool("delegate", {"goal": "fail the printer burns"})
    assert result.is_error
    assert fields(result)["error"] == {"reason": "AGENT_REFUSED", "message": "the printer burns", "step": "work"}
    assert "the printer burns" in text(result)


async def test_the_same_idempotency_key_is_the_same_run() -> None:
    async with mcp_site() as site, client(site.url, "2026-07-28") as hub:
        first, second = [
            fields(await hub.call_tool("delegate", {"goal": "echo hi", "idempotency_key": "k"})) for _ in range(2)
        ]
    assert first["run_id"] == second["run_id"]


async def test_a_workflow_is_given_as_an_object_as_yaml_or_by_its_id() -> None:
    async with mcp_site(writer()) as site, client(site.url, "2026-07-28") as hub:
        workflows: list[object] = [{"steps": []}, "steps: []", "writer"]
        for given in workflows:
            await hub.call_tool("delegate", {"goal": "echo hi", "workflow": given, "inputs": {"a": 1}})
        refused_one = await hub.call_tool("delegate", {"goal": "echo hi", "workflow": "a: [1"})
    submitted = [(each.workflow, each.agent_id, each.inputs) for each in site.supervisor.assignments]
    assert submitted == [({"steps": []}, "", {"a": 1})] * 2 + [(None, "writer", {"a": 1})]
    assert refused_one.is_error
    assert "not YAML" in text(refused_one)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("delegate", {}, "'goal' is a required property"),
        ("delegate", {"goal": "x", "wait_s": "soon"}, "arguments.wait_s: 'soon' is not of type 'number'"),
        ("delegate", {"goal": "x", "agent": "nobody"}, "nobody"),
        ("delegate", {"goal": "x", "workflow": {"name": "w"}}, "steps: is missing"),
        ("run_result", {"run_id": "none"}, "no run has the id 'none'"),
        ("answer", {"run_id": "none"}, "give `answer` or `data`"),
        ("call", {"agent": "nobody"}, "nobody"),
        ("call", {"agent": "writer", "capability": "writ"}, "did you mean write?"),
        ("writer__write", {"massage": "x"}, "'message' is a required property"),
    ],
)
async def test_what_is_wrong_is_said_in_words_that_a_model_can_act_on(
    tool: str, arguments: dict[str, object], words: str
) -> None:
    async with mcp_site(writer()) as site, client(site.url, "2026-07-28") as hub:
        result = await hub.call_tool(tool, arguments)
    assert result.is_error
    assert words in text(result)


@pytest.mark.parametrize("mode", ERAS)
async def test_an_unknown_tool_is_a_protocol_error_with_the_near_ones(mode: str) -> None:
    async with mcp_site(writer()) as site, client(site.url, mode) as hub:
        with pytest.raises(MCPError, match="did you mean writer__write") as raised:
            await hub.call_tool("writer__wrote", {})
    assert raised.value.code == types.INVALID_PARAMS


@pytest.mark.parametrize("mode", ERAS)
async def test_progress_of_a_direct_call_is_relayed(mode: str) -> None:
    person = Person()
    async with mcp_site(writer()) as site, client(site.url, mode) as hub:
        await hub.call_tool("writer__write", {"message": "hi"}, progress_callback=person.hear)
    assert person.heard == ["thinking", "typing"]


@pytest.mark.parametrize("mode", ERAS)
async def test_a_question_of_a_direct_call_is_asked_and_answered_with_its_state(mode: str) -> None:
    asker = ScriptedAgent("asker").on("book", question("Which city?", state={"seat": 7}), answer("booked"))
    person = Person(answers={"answer": "Rome"})
    async with mcp_site(asker) as site, client(site.url, mode, person) as hub:
        result = await hub.call_tool("asker__book", {"message": "book"})
    assert text(result) == "booked"
    first, second = asker.calls
    assert second.resume is not None
    assert (second.resume.answer, second.resume.state) == ((TextPart(text="Rome"),), {"seat": 7})
    assert first.idempotency_key == second.idempotency_key


async def test_a_direct_call_that_asks_a_client_that_cannot_be_asked_says_what_to_do() -> None:
    asker = ScriptedAgent("asker").on("book", question("Which city?"))
    async with mcp_site(asker) as site, client(site.url, "2026-07-28") as hub:
        result = await hub.call_tool("asker__book", {"message": "book"})
    assert result.is_error
    assert "Which city?" in text(result)
    assert "delegate" in text(result)


async def test_a_canceled_direct_call_reaches_the_agent() -> None:
    never = anyio.Event()
    slow = ScriptedAgent("slow").on("wait", Turn(until=never, end=answer("")))
    async with mcp_site(slow) as site, client(site.url, "2026-07-28") as hub:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hub.call_tool, "slow__wait", {"message": "x"})
                await slow.wait_for_calls(1)
                tasks.cancel_scope.cancel()
            while not slow.canceled:
                await anyio.lowlevel.checkpoint()


async def test_an_agents_refusal_is_an_error_result() -> None:
    stern = ScriptedAgent("stern").on("do", refused("not today", by="stern"))
    async with mcp_site(stern) as site, client(site.url, "2026-07-28") as hub:
        result = await hub.call_tool("stern__do", {"message": "x"})
    assert (result.is_error, text(result)) == (True, "stern answered with an error: not today")


async def test_a_skills_files_are_content_and_named_in_the_structured_part() -> None:
    made = Completed(
        parts=(
            TextPart(text="here"),
            RawPart(raw=b"\x89PNG", media_type="image/png", filename="a.png"),
            UrlPart(url="https://example.com/b.pdf", filename="b.pdf"),
        )
    )
    async with mcp_site(ScriptedAgent("artist").on("draw", made)) as site, client(site.url, "2026-07-28") as hub:
        result = await hub.call_tool("artist__draw", {"message": "x"})
    assert [block.type for block in result.content] == ["text", "image", "resource_link"]
    assert fields(result)["artifacts"] == [
        {
            "artifact_id": "answer",
            "name": "answer",
            "files": [
                {"name": "a.png", "media_type": "image/png", "bytes": 4},
                {"name": "b.pdf", "url": "https://example.com/b.pdf"},
            ],
        }
    ]


async def test_find_gives_what_call_needs_and_call_uses_it() -> None:
    async with mcp_site(writer()) as site, client(site.url, "2026-07-28") as hub:
        found = fields(await hub.call_tool("find", {"need": "write a poem", "explain": True}))
        (match,) = found["matches"]
        assert (match["agent"], match["capability"], match["kind"]) == ("writer", "write", "skill")
        assert "message" in match["input_schema"]["properties"]
        result = await hub.call_tool("call", {"agent": "writer", "arguments": {"message": "hi"}})
    assert fields(result) == {"answer": "a poem"}


async def test_above_the_limit_agents_tools_are_not_listed_but_can_be_called() -> None:
    many = ScriptedAgent("many")
    for number in range(50):
        many.on(f"do{number}", answer(str(number)))
    async with mcp_site(many) as site, client(site.url, "2026-07-28") as hub:
        assert [tool.name for tool in (await hub.list_tools()).tools] == OWN
        assert text(await hub.call_tool("many__do7", {"message": "x"})) == "7"


@pytest.mark.parametrize("mode", ERAS)
async def test_a_long_list_comes_in_pages_and_a_foreign_cursor_is_refused(mode: str) -> None:
    many = ScriptedAgent("many")
    for number in range(20):
        many.on(f"do{number}", answer(str(number)))
    async with mcp_site(many, catalogue="all", page_size=10) as site, client(site.url, mode) as hub:
        names: list[str] = []
        cursor: str | None = None
        while True:
            page = await hub.list_tools(cursor=cursor)
            names += [tool.name for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert names == [*OWN, *sorted(f"many__do{number}" for number in range(20))]
        with pytest.raises(MCPError, match="cursor"):
            await hub.list_tools(cursor="!!")


async def test_a_new_agent_is_told_to_modern_listeners() -> None:
    late = ScriptedAgent("late").on("do", answer("x"))
    async with mcp_site(writer(), late) as site, client(site.url, "2026-07-28") as hub:
        await hub.list_tools()
        async with hub.listen(tools_list_changed=True) as events:
            await site.hub.remove_agent(ADMIN, "late")
            with anyio.fail_after(5):
                await anext(aiter(events))
        assert "late__do" not in [tool.name for tool in (await hub.list_tools()).tools]


async def test_a_new_agent_is_told_in_legacy_sessions_which_are_told_that_lists_change() -> None:
    changed = anyio.Event()

    async def hear(message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            changed.set()

    late = ScriptedAgent("late").on("do", answer("x"))
    async with mcp_site(writer(), late) as site, Client(site.url, mode="legacy", message_handler=hear) as hub:
        assert hub.server_capabilities is not None
        assert hub.server_capabilities.tools is not None
        assert hub.server_capabilities.tools.list_changed is True
        await hub.list_tools()
        with anyio.fail_after(5):
            while not changed.is_set():  # the stream that carries it is opened by the client in its own time
                await site.hub.remove_agent(ADMIN, "late")
                await add(site.hub, late)
                with anyio.move_on_after(0.2):
                    await changed.wait()


async def test_a_session_and_a_sealed_state_belong_to_whoever_began_them() -> None:
    asker = ScriptedAgent("asker").on("book", question("Which city?"), answer("booked"))
    async with mcp_site(asker) as site, AsyncExitStack() as stack:
        person = Person(answers={"answer": "Rome"})
        ann = await stack.enter_async_context(client(site.url, "2026-07-28", person))
        rounds = await ann.session.call_tool("asker__book", {"message": "x"}, allow_input_required=True)
        assert isinstance(rounds, types.InputRequiredResult)
        http = await stack.enter_async_context(httpx2.AsyncClient(headers={"Authorization": "Bearer bob"}))
        other = streamable_http_client(site.url, http_client=http)
        bob = await stack.enter_async_context(client(other, "2026-07-28", person))
        with pytest.raises(MCPError, match="Invalid or expired requestState"):
            await bob.session.call_tool(
                "asker__book",
                {"message": "x"},
                request_state=rounds.request_state,
                input_responses={"question": types.ElicitResult(action="accept", content={"answer": "Rome"})},
            )


async def test_agents_of_another_tenant_are_not_there() -> None:
    async with mcp_site(writer()) as site, AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(headers={"Authorization": "Bearer eve@elsewhere"}))
        eve = await stack.enter_async_context(client(streamable_http_client(site.url, http_client=http), "2026-07-28"))
        assert [tool.name for tool in (await eve.list_tools()).tools] == OWN
        with pytest.raises(MCPError, match="no tool is called"):
            await eve.call_tool("writer__write", {"message": "x"})


async def test_an_mcp_tool_keeps_its_definition_and_its_result() -> None:
    definition: JsonObject = {
        "name": "add",
        "title": "Add",
        "description": "adds",
        "inputSchema": {**NUMBER, "$defs": {"x": {"const": None}}},
        "outputSchema": {"type": "object", "properties": {"sum": {"type": "number"}}},
        "annotations": {"readOnlyHint": True, "title": "Adder"},
        "_meta": {"ui": {"resourceUri": "ui://calc"}, "io.modelcontextprotocol/x": 1},
    }
    capability = Capability(
        name="add",
        kind=Kind.TOOL,
        description="adds",
        input_schema=definition["inputSchema"],  # type: ignore[arg-type]
        output_schema=definition["outputSchema"],  # type: ignore[arg-type]
        raw=definition,
    )
    raw: JsonObject = {
        "content": [
            {"type": "text", "text": "3", "annotations": {"priority": 1.0}},
            {"type": "resource_link", "uri": "calc://history", "name": "history"},
        ],
        "structuredContent": {"sum": 3, "rest": None},
        "_meta": {"cost": 1, "io.modelcontextprotocol/serverInfo": {"name": "calc", "version": "9"}},
    }
    calc = ScriptedAgent("calc", capabilities=[capability])
    calc.on("add", Completed(parts=(TextPart(text="3"),), structured={"sum": 3}, raw=raw), kind=Kind.TOOL)
    async with mcp_site(calc) as site, client(site.url, "2026-07-28") as hub:
        tool = (await hub.list_tools()).tools[-1]
        assert (tool.name, tool.title, tool.meta) == ("calc__add", "Add", {"ui": {"resourceUri": "ui://calc"}})
        assert tool.input_schema == definition["inputSchema"]
        assert tool.annotations is not None
        assert (tool.annotations.read_only_hint, tool.annotations.title) == (True, "Adder")
        result = await hub.call_tool("calc__add", {"a": 1})
        assert result.structured_content == {"sum": 3, "rest": None}
        assert result.meta is not None
        assert result.meta["cost"] == 1
        assert result.meta["io.modelcontextprotocol/serverInfo"]["name"] == "interhub"
        link = result.content[1]
        assert isinstance(link, types.ResourceLink)
        assert link.uri == "interhub://calc/calc://history"


@pytest.mark.parametrize("mode", ERAS)
async def test_prompts_and_resources_are_offered_under_names_of_the_hub(mode: str) -> None:
    capabilities = [
        Capability(
            name="greet",
            kind=Kind.PROMPT,
            raw={"name": "greet", "arguments": [{"name": "who", "required": True}]},
        ),
        Capability(name="file:///a.txt", kind=Kind.RESOURCE, raw={"uri": "file:///a.txt", "name": "a"}),
        Capability(
            name="db://{table}/rows", kind=Kind.RESOURCE_TEMPLATE, raw={"uriTemplate": "db://{table}/rows", "name": "t"}
        ),
    ]
    greeting: JsonObject = {"messages": [{"role": "assistant", "content": {"type": "text", "text": "hello"}}]}
    contents: JsonObject = {"contents": [{"uri": "file:///a.txt", "text": "A", "mimeType": "text/plain"}]}
    rows: JsonObject = {"contents": [{"uri": "db://users/rows", "text": "[]"}]}
    library = ScriptedAgent("library", capabilities=capabilities)
    library.on("greet", Completed(raw=greeting), kind=Kind.PROMPT)
    library.on("file:///a.txt", Completed(raw=contents), kind=Kind.RESOURCE)
    library.on("db://{table}/rows", Completed(raw=rows), kind=Kind.RESOURCE_TEMPLATE)
    async with mcp_site(library) as site, client(site.url, mode) as hub:
        (prompt,) = (await hub.list_prompts()).prompts
        assert prompt.name == "library__greet"
        message = (await hub.get_prompt("library__greet", {"who": "you"})).messages[0]
        assert (message.role, message.content) == ("assistant", types.TextContent(text="hello"))
        (resource,) = (await hub.list_resources()).resources
        assert resource.uri == "interhub://library/file:///a.txt"
        read = (await hub.read_resource(resource.uri)).contents[0]
        assert (read.uri, read.mime_type) == (resource.uri, "text/plain")
        (template,) = (await hub.list_resource_templates()).resource_templates
        uri = template.uri_template.replace("{table}", "users")
        assert (await hub.read_resource(uri)).contents[0].uri == uri
        assert library.calls[-1].arguments == {"table": "users"}
        with pytest.raises(MCPError, match="no resource is at"):
            await hub.read_resource("interhub://library/file:///b.txt")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_instructions_name_the_workflows(mode: str) -> None:
    async with mcp_site(writer()) as site:
        await site.hub.add_agent(ADMIN, FromDocument(document={"name": "weekly-report"}))
        async with client(site.url, mode) as hub:
            assert "Workflows (give their id to `delegate` as `agent`):\n- weekly-report" in str(hub.instructions)


async def test_what_delegate_gives_is_of_the_shape_that_is_documented() -> None:
    async with mcp_site(writer()) as site, client(site.url, "2026-07-28") as hub:
        given = await hub.call_tool("delegate", {"goal": "write", "agent": "writer"})
        assert problems_of(fields(given), RUN_SCHEMA) == ()
