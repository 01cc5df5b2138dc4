"""CrewAI agents in workers."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from interhub.adapters import (
    BadEndpoint,
    Call,
    Completed,
    Connection,
    DataPart,
    InputRequired,
    Outcome,
    Part,
    Principal,
    Progress,
    RemoteRefused,
    Resume,
    TextPart,
    Update,
    Usage,
    ignore,
)
from interhub.adapters.testing import said
from interhub.agent_cards import AgentCard, Json
from tests.support.workers import AGENTS, EXAMPLES, worker_adapter, worker_endpoint

pytestmark = pytest.mark.anyio

MORE = AGENTS / "crewai_more.py"


def call(message: str = "", *, key: str = "run/1", **data: Json) -> Call:
    return Call(
        capability="",
        arguments={"message": message, **({"data": data} if data else {})},
        principal=Principal(subject="ann"),
        idempotency_key=key,
    )


def answered(asked: Outcome, request: Call, *parts: Part, accepted: bool = True) -> Call:
    assert isinstance(asked, InputRequired)
    return replace(request, resume=Resume(answer=parts, state=asked.state, accepted=accepted))


@asynccontextmanager
async def connected(home: Path, name: str) -> AsyncGenerator[Connection]:
    endpoint = worker_endpoint("crewai", f"{MORE}:{name}", {"CALLS": os.fspath(home / "calls")})
    async with worker_adapter(home).connect(endpoint, card=AgentCard(name="it"), label="it") as connection:
        yield connection


async def test_a_crews_placeholders_are_filled_and_its_tokens_counted_by_call(tmp_path: Path) -> None:
    async with connected(tmp_path, "crew") as connection:
        for key in ("1", "2"):
            outcome = await connection.call(call("hello", key=key, tone="loud"), ignore)
            assert said(outcome) == "said hello"
            assert isinstance(outcome, Completed)
            assert outcome.usage == Usage(input_tokens=10, output_tokens=5)
        with pytest.raises(RemoteRefused, match="the crew also needs tone; send data with these fields"):
            await connection.call(call("hello", key="3"), ignore)


async def test_a_crew_says_in_its_card_what_it_needs(tmp_path: Path) -> None:
    card = await worker_adapter(tmp_path).describe(worker_endpoint("crewai", f"{MORE}:crew"))
    assert card.name == "speakers"
    schema = card.capabilities[0].input_schema
    assert schema["required"] == ["message", "data"]
    assert str(schema["properties"]).count("tone") == 2


async def test_a_review_waits_in_the_process_and_repeats_until_it_is_accepted(tmp_path: Path) -> None:
    async with connected(tmp_path, "reviewed") as connection:
        request = call("hello", tone="soft")
        first = await connection.call(request, ignore)
        assert "said hello" in said(first)
        second = await connection.call(answered(first, request, TextPart(text="Say more")), ignore)
        assert isinstance(second, InputRequired)
        other = await connection.call(call("bye", key="other", tone="x"), ignore)
        assert isinstance(other, InputRequired)
        ended = await connection.call(answered(second, request, DataPart(data={"approved": True})), ignore)
        assert isinstance(ended, Completed)
        assert (tmp_path / "calls").read_text().count("called") == 3
        with pytest.raises(RemoteRefused, match="declined"):
            await connection.call(answered(other, call("bye", key="other", tone="x"), accepted=False), ignore)


async def test_a_review_goes_on_in_another_process_with_the_answers_so_far(tmp_path: Path) -> None:
    request = call("hello", tone="soft")
    async with connected(tmp_path, "reviewed") as connection:
        first = await connection.call(request, ignore)
        second = await connection.call(answered(first, request, TextPart(text="Say more")), ignore)
    async with connected(tmp_path, "reviewed") as connection:
        ended = await connection.call(answered(second, request, TextPart(text="ok")), ignore)
    assert isinstance(ended, Completed)
    assert said(ended) == said(second).rpartition("\n")[2]


async def test_a_flow_asks_and_an_agent_answers(tmp_path: Path) -> None:
    async with connected(tmp_path, "Asking") as connection:
        request = call("rain")
        first = await connection.call(request, ignore)
        assert said(first) == "What of rain?"
        second = await connection.call(answered(first, request, TextPart(text="umbrella")), ignore)
        assert said(second) == "And then?"
        ended = await connection.call(answered(second, request, TextPart(text="sun")), ignore)
        assert isinstance(ended, Completed)
        assert ended.structured == {"first": "umbrella", "second": "sun"}
    async with connected(tmp_path, "agent") as connection:
        assert said(await connection.call(call("Say hi"), ignore)) == "said hi"


async def test_a_target_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BadEndpoint, match="is Wanted, not a CrewAI Crew, Agent, Flow"):
        await worker_adapter(tmp_path).describe(worker_endpoint("crewai", f"{MORE}:Wanted"))


async def test_the_example_makes_a_brief_of_the_notes_it_is_given(tmp_path: Path) -> None:
    updates: list[Update] = []

    async def report(update: Update) -> None:
        updates.append(update)

    log = tmp_path / "log"
    endpoint = worker_endpoint("crewai", EXAMPLES / "crewai_writers.py:crew", {"INTERHUB_EXAMPLE_LOG": os.fspath(log)})
    notes = "Notes on the night ferry\n- what it is for: It crosses.\n- how it works: It floats"
    async with worker_adapter(tmp_path).connect(endpoint, card=AgentCard(name="w"), label="writers") as connection:
        outcome = await connection.call(call(notes), report)
    assert said(outcome) == "Brief: Notes on the night ferry\nIt crosses. It floats."
    assert [update.text for update in updates if isinstance(update, Progress)] == [
        "Writer: draft",
        "Writer: done",
        "Editor: edit",
        "Editor: done",
    ]
    assert log.read_text().count('"key": "run/1"') == 1
