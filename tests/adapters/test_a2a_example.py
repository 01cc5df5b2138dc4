"""The example A2A agent, in an environment of its own, does what it says; and the adapter never has it work twice."""

import os
import signal
from collections.abc import Generator
from dataclasses import replace

import anyio
import pytest

from interhub.adapters import (
    ArtifactChunk,
    Call,
    Completed,
    DataPart,
    InputRequired,
    Principal,
    Progress,
    RemoteRefused,
    RemoteUnavailable,
    Resume,
    TaskBound,
    TextPart,
    Update,
    ignore,
    text_of,
)
from interhub.adapters.a2a import A2aAdapter
from interhub.adapters.testing import said
from interhub.agent_cards import AgentCard, Binding, Endpoint, Kind
from tests.support.processes import ROOT, Peer, environment, peer

pytestmark = pytest.mark.anyio

SCRIPT = ROOT / "examples" / "a2a_agent.py"
TEXT = "Sales rose by 30 % in 2024. According to the annual report, 12 shops opened. The weather was fine."


@pytest.fixture(scope="module")
def reviewer(tmp_path_factory: pytest.TempPathFactory) -> Generator[Peer]:
    python = environment(ROOT / "examples" / "requirements" / "a2a_agent.txt")
    with peer(python, SCRIPT, "--pace", "0.01", log=tmp_path_factory.mktemp("reviewer") / "log") as running:
        yield running


def call(text: str, key: str) -> Call:
    return Call(
        capability="review_text",
        arguments={"message": text},
        principal=Principal(subject="ann"),
        idempotency_key=key,
    )


async def card_of(agent: Peer) -> AgentCard:
    return await A2aAdapter().describe(Endpoint(binding=Binding.A2A_JSONRPC, url=agent.url))


def executed(agent: Peer, key: str) -> list[str]:
    """How the executions of a call ended, in order; `running` for one that has not."""
    lines = agent.executions()
    ended = {line["messageId"]: str(line["state"]) for line in lines if line["event"] == "ended"}
    started = [line for line in lines if line["event"] == "started"]
    return [
        ended.get(line["messageId"], "running")
        for line in started
        if isinstance(line["metadata"], dict) and line["metadata"]["interhub.dev/idempotencyKey"] == key
    ]


async def test_it_really_reviews_the_text(reviewer: Peer) -> None:
    card = await card_of(reviewer)
    assert card.capability("review_text", Kind.SKILL) is not None
    updates: list[Update] = []

    async def report(update: Update) -> None:
        updates.append(update)

    async with A2aAdapter().connect(card.interfaces[0], card=card, label="reviewer") as connection:
        outcome = await connection.call(call(TEXT, "review"), report)
        supported = await connection.call(call(TEXT + " Source: https://example.com/weather", "supported"), ignore)
    assert isinstance(outcome, Completed)
    readable, data = outcome.artifacts[0].parts
    assert isinstance(readable, TextPart)
    assert "18 words in 3 sentences" in readable.text
    assert isinstance(data, DataPart)
    assert isinstance(data.data, dict)
    assert data.data["sources"] == ["According to the annual report"]
    assert data.data["claims"] == 2
    assert text_of(outcome.parts) == "every claim names a source"
    assert isinstance(updates[0], TaskBound)
    assert [update.text for update in updates if isinstance(update, Progress)] == [
        "Reading 18 words",
        "Found 1 sources",
        "Checked 2 claims",
    ]
    assert isinstance(updates[-1], ArtifactChunk)
    assert "https://example.com/weather" in said(supported)


async def test_a_review_in_pieces_is_one_artifact(reviewer: Peer) -> None:
    card = await card_of(reviewer)
    async with A2aAdapter().connect(card.interfaces[1], card=card, label="reviewer") as connection:
        outcome = await connection.call(call(f"chunks: 5 {TEXT}", "pieces"), ignore)
    assert isinstance(outcome, Completed)
    assert len(outcome.artifacts) == 1
    pieces = [part.text for part in outcome.artifacts[0].parts if isinstance(part, TextPart)]
    assert len(pieces) == 5
    assert "".join(pieces).startswith("Verdict: every claim names a source\n18 words")


@pytest.mark.parametrize("interface", [0, 1, 2, 3])
async def test_a_message_sent_again_is_executed_once(reviewer: Peer, interface: int) -> None:
    card = await card_of(reviewer)
    key = f"once/{interface}"
    outcomes: list[str] = []

    async with A2aAdapter().connect(card.interfaces[interface], card=card, label="reviewer") as connection:

        async def one() -> None:
            outcomes.append(said(await connection.call(call(f"slow: 0.3 {TEXT}", key), ignore)))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(one)
        await one()
        answers = {said(await connection.call(call(f"message: {TEXT}", f"{key}/m"), ignore)) for _ in range(2)}
    assert len(outcomes) == 4
    assert len(set(outcomes)) == 1
    assert len(answers) == 1
    assert executed(reviewer, key) == ["completed"]
    assert executed(reviewer, f"{key}/m") == ["message"]


@pytest.mark.parametrize("interface", [0, 1, 2, 3])
async def test_a_running_task_is_attached_to_again_by_another_connection(reviewer: Peer, interface: int) -> None:
    card = await card_of(reviewer)
    key = f"again/{interface}"
    bound = anyio.Event()
    tasks_seen: list[str] = []

    async def report(update: Update) -> None:
        if isinstance(update, TaskBound):
            tasks_seen.append(update.remote_task)
            bound.set()
            await anyio.sleep_forever()  # a hub that dies here: the connection goes, nobody cancels

    asked = call(f"slow: 1 {TEXT}", key)
    outcomes: list[str] = []
    adapter = A2aAdapter()
    async with (
        adapter.connect(card.interfaces[interface], card=card, label="reviewer") as second,
        adapter.connect(card.interfaces[interface], card=card, label="reviewer") as first,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(first.call, asked, report)
        with anyio.fail_after(10):
            await bound.wait()
        outcomes.append(said(await second.call(replace(asked, remote_task=tasks_seen[0]), ignore)))
        tasks.cancel_scope.cancel()
    assert "every claim names a source" in outcomes[0]
    assert executed(reviewer, key) == ["completed"]


async def test_an_answer_given_twice_is_taken_once(reviewer: Peer) -> None:
    card = await card_of(reviewer)
    asked = call("ask: the moon is 384,400 km away", "answered")
    adapter = A2aAdapter()
    async with adapter.connect(card.interfaces[0], card=card, label="reviewer") as connection:
        question = await connection.call(asked, ignore)
    assert isinstance(question, InputRequired)
    assert text_of(question.question) == "Which sources are there for: the moon is 384,400 km away"
    answer = replace(asked, resume=Resume(answer=(TextPart(text="https://example.com/moon"),), state=question.state))
    assert isinstance(question.state, dict)
    bound = replace(answer, remote_task=str(question.state["taskId"]))
    async with adapter.connect(card.interfaces[0], card=card, label="reviewer") as connection:
        outcomes = [said(await connection.call(each, ignore)) for each in (bound, bound, answer)]
    assert len(set(outcomes)) == 1
    assert "https://example.com/moon" in outcomes[0]
    assert executed(reviewer, "answered") == ["input-required", "completed"]


async def test_failures_say_what_the_agent_said(reviewer: Peer) -> None:
    card = await card_of(reviewer)
    async with A2aAdapter().connect(card.interfaces[0], card=card, label="the reviewer") as connection:
        for word, said in (("fail", "answered with an error"), ("reject", "rejected the task")):
            with pytest.raises(RemoteRefused, match=rf"the reviewer .* {said}: no paper left") as caught:
                await connection.call(call(f"{word}: no paper left", word), ignore)
            assert text_of(caught.value.parts) == "no paper left"


async def test_an_agent_that_dies_in_mid_stream_is_unavailable_and_the_retry_is_the_same_message(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    python = environment(ROOT / "examples" / "requirements" / "a2a_agent.txt")
    log = tmp_path_factory.mktemp("dying") / "log"
    asked = call(f"slow: 60 {TEXT}", "dying")
    bound: list[str] = []
    with peer(python, SCRIPT, "--pace", "0.01", log=log) as first:
        card = await card_of(first)

        async def report(update: Update) -> None:
            if isinstance(update, TaskBound):
                bound.append(update.remote_task)
                os.kill(first.pid, signal.SIGKILL)

        async with A2aAdapter().connect(card.interfaces[0], card=card, label="reviewer") as connection:
            with anyio.fail_after(20), pytest.raises(RemoteUnavailable, match="is it running"):
                await connection.call(asked, report)
    with peer(python, SCRIPT, "--pace", "0.01", log=log) as second:
        card = await card_of(second)
        async with A2aAdapter().connect(card.interfaces[0], card=card, label="reviewer") as connection:
            again = replace(asked, remote_task=bound[0], timeout_s=0.5)
            with pytest.raises(RemoteUnavailable):
                await connection.call(again, ignore)
        sent = [line["messageId"] for line in second.executions() if line["event"] == "started"]
    assert len(sent) == 2, "the new process did not know the task, so the message went out again"
    assert len(set(sent)) == 1
