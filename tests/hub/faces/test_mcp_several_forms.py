"""An agent that asks several things at once is shown as several forms, one for each, whoever the client is."""

from typing import Any

import mcp_types as t
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from interhub.adapters import Completed, DataPart, InputRequest, InputRequired, TextPart
from interhub.adapters.base import Call, Outcome, Report
from interhub.adapters.testing import ScriptedAdapter, ScriptedAgent
from interhub.agent_cards import Binding, Endpoint, JsonObject
from tests.support.mcp_hub import small_hub

pytestmark = pytest.mark.anyio

CONFIRM: JsonObject = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"]}


def asker() -> ScriptedAdapter:
    async def ask(call: Call, report: Report) -> Outcome:
        if call.resume is None:
            return InputRequired.several(
                [
                    InputRequest(key="name", question=(TextPart(text="Who?"),)),
                    InputRequest(key="sure", question=(TextPart(text="Sure?"),), schema=CONFIRM),
                ],
                state={"kept": 1},
            )
        assert call.resume.state == {"kept": 1}
        answers = [part.data for part in call.resume.answer if isinstance(part, DataPart)]
        return Completed(parts=(TextPart(text=f"{answers if call.resume.accepted else 'declined'}"),))

    return ScriptedAdapter(ScriptedAgent("asker").on("ask", ask))


class Person:
    """Answers each form by what it asks; declines those that are in `declines`."""

    def __init__(self, *declines: str) -> None:
        self._declines = declines
        self.asked: list[str] = []

    async def elicit(self, context: object, params: t.ElicitRequestParams) -> t.ElicitResult:
        self.asked.append(params.message)
        if any(params.message.endswith(each) for each in self._declines):
            return t.ElicitResult(action="decline")
        if params.message.endswith("Who?"):
            return t.ElicitResult(action="accept", content={"answer": "Ann"})
        return t.ElicitResult(action="accept", content={"sure": True})


def words(result: t.CallToolResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, t.TextContent))


@pytest.mark.parametrize("era", ["auto", "legacy"])
@pytest.mark.parametrize(
    ("declines", "given"),
    [
        ((), "[{'name': 'Ann', 'sure': {'sure': True}}]"),
        (("Sure?",), "[{'name': 'Ann', 'sure': None}]"),
        (("Who?", "Sure?"), "declined"),
    ],
)
async def test_each_thing_is_a_form_of_its_own(era: Any, declines: tuple[str, ...], given: str) -> None:
    adapter, person = asker(), Person(*declines)
    endpoint = Endpoint(binding=Binding.LOCAL, url="scripted:asker")
    async with small_hub({"scripted": adapter}) as (hub, address):
        await hub.add("asker", "scripted", endpoint, await adapter.describe(endpoint))
        streams = streamable_http_client(f"{address}/agents/asker/mcp")
        async with Client(streams, mode=era, elicitation_callback=person.elicit) as client:
            result = await client.call_tool("ask", {"message": "go"})
    assert words(result) == given
    assert [message[-5:].strip() for message in person.asked] == ["Who?", "Sure?"]


async def test_what_was_left_out_is_asked_again_alone() -> None:
    adapter = asker()
    endpoint = Endpoint(binding=Binding.LOCAL, url="scripted:asker")
    async with small_hub({"scripted": adapter}) as (hub, address):
        await hub.add("asker", "scripted", endpoint, await adapter.describe(endpoint))
        streams = streamable_http_client(f"{address}/agents/asker/mcp")
        async with Client(streams, elicitation_callback=Person().elicit) as client:
            call = client.session.call_tool
            first = await call("ask", {"message": "go"}, allow_input_required=True)
            assert isinstance(first, t.InputRequiredResult)
            assert set(first.input_requests or {}) == {"name", "sure"}
            one: Any = {"name": t.ElicitResult(action="accept", content={"answer": "Ann"})}
            second = await call(
                "ask",
                {"message": "go"},
                request_state=first.request_state,
                input_responses=one,
                allow_input_required=True,
            )
            assert isinstance(second, t.InputRequiredResult)
            assert set(second.input_requests or {}) == {"sure"}
            other: Any = {"sure": t.ElicitResult(action="accept", content={"sure": False})}
            third = await call("ask", {"message": "go"}, request_state=second.request_state, input_responses=other)
            assert words(third) == "[{'name': 'Ann', 'sure': {'sure': False}}]"
