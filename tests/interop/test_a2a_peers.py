"""Agents and clients that nobody here wrote, each in an environment of its own, with scripted models.

The environments are hash-locked (`requirements/`), built once under `.interhub/test-envs` and kept. CrewAI's, of
830 MB, is built by `make interop` only.
"""

import json
import os
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from interhub.adapters import (
    ArtifactChunk,
    Call,
    Completed,
    DataPart,
    InputRequired,
    Principal,
    Resume,
    TaskBound,
    TextPart,
    Update,
    Usage,
    ignore,
    text_of,
)
from interhub.adapters.a2a import A2aAdapter, A2aConnection
from interhub.adapters.a2a.tolerance import Leniency
from interhub.adapters.testing import said
from interhub.agent_cards import AgentCard, Binding, Endpoint
from tests.support.processes import Peer, environment, peer
from tests.support.whole_hub import whole_hub

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent


def python_of(name: str) -> Path:
    return environment(HERE / "requirements" / f"{name}.txt")


@pytest.fixture(scope="module")
def adk() -> Generator[Peer]:
    with peer(python_of("adk"), HERE / "peers" / "adk_server.py") as running:
        yield running


@pytest.fixture(scope="module")
def strands() -> Generator[Peer]:
    with peer(python_of("strands"), HERE / "peers" / "strands_server.py") as running:
        yield running


@pytest.fixture(scope="module")
def fasta2a() -> Generator[Peer]:
    with peer(python_of("fasta2a"), HERE / "peers" / "fasta2a_server.py") as running:
        yield running


@pytest.fixture(scope="module")
def langgraph() -> Generator[Peer]:
    with peer(python_of("langgraph_dev"), HERE / "peers" / "langgraph_server.py") as running:
        yield running


def call(text: str, key: str) -> Call:
    return Call(capability="", arguments={"message": text}, principal=Principal(subject="ann"), idempotency_key=key)


@asynccontextmanager
async def connected(agent: Peer) -> AsyncGenerator[tuple[A2aConnection, AgentCard]]:
    adapter = A2aAdapter()
    card = await adapter.describe(Endpoint(binding=Binding.A2A_JSONRPC, url=agent.url))
    async with adapter.connect(card.interfaces[0], card=card, label=card.name) as connection:
        assert isinstance(connection, A2aConnection)
        yield connection, card


async def test_adk_answers(adk: Peer) -> None:
    async with connected(adk) as (connection, card):
        assert (card.interfaces[0].version, card.streaming) == ("1.0", True)
        outcome = await connection.call(call("hello", "adk/echo"), ignore)
        assert said(outcome) == "echo hello"
        assert isinstance(outcome, Completed)
        assert outcome.usage == Usage(input_tokens=7, output_tokens=3)
        assert connection.reader.noted == frozenset()


@pytest.mark.parametrize(
    ("resume", "told"),
    [
        (Resume(answer=(DataPart(data={"approved": True}),)), '{"deleted": "/tmp/old"}'),
        (Resume(answer=(DataPart(data={"approved": False, "reason": "still used"}),)), "rejected"),
        (Resume(answer=(TextPart(text="I would rather not"),)), "rejected"),
    ],
    ids=["approved", "rejected", "unclear"],
)
async def test_adks_confirmations_are_asked_as_a_form_and_answered_in_its_own_words(
    adk: Peer, resume: Resume, told: str, request: pytest.FixtureRequest
) -> None:
    asking = call("delete /tmp/old", f"adk/{request.node.name}")
    async with connected(adk) as (connection, _):
        asked = await connection.call(asking, ignore)
        assert isinstance(asked, InputRequired)
        assert 'May it call delete_file(path="/tmp/old")?' in text_of(asked.question)
        assert asked.schema is not None
        state = json.loads(json.dumps(asked.state))  # answered by another process
    async with connected(adk) as (connection, _):
        outcome = await connection.call(replace(asking, resume=replace(resume, state=state)), ignore)
    assert told in said(outcome)


async def test_strands_answers_over_0_3_word_by_word(strands: Peer) -> None:
    chunks: list[ArtifactChunk] = []

    async def report(update: Update) -> None:
        if isinstance(update, ArtifactChunk):
            chunks.append(update)

    async with connected(strands) as (connection, card):
        assert card.interfaces[0].version == "0.3"
        outcome = await connection.call(call("hello there", "strands/echo"), report)
        assert connection.reader.noted == frozenset()
    assert isinstance(outcome, Completed)
    assert (
        "".join(part.text for part in outcome.artifacts[0].parts if isinstance(part, TextPart)) == "echo hello there "
    )
    assert len(chunks) >= 3


async def test_fasta2a_loses_no_result_though_its_times_have_no_zone_and_its_stream_leaves_it_out(
    fasta2a: Peer,
) -> None:
    async with connected(fasta2a) as (connection, _):
        assert said(await connection.call(call("hello", "fasta2a/echo"), ignore)) == "echo hello"
        assert {Leniency.NAIVE_TIMESTAMP, Leniency.UNTOLD_RESULT} <= connection.reader.noted


async def test_langgraphs_bare_events_and_long_ids_are_read(langgraph: Peer) -> None:
    bound: list[str] = []

    async def report(update: Update) -> None:
        if isinstance(update, TaskBound):
            bound.append(update.remote_task)

    async with connected(langgraph) as (connection, _):
        assert said(await connection.call(call("hello", "langgraph/echo"), report)) == "echo hello"
        assert {Leniency.BARE_EVENT, Leniency.LEGACY_PART} <= connection.reader.noted
    assert len(bound[0]) == 73


async def test_langgraphs_interrupt_is_found_in_its_artifact_and_answered(langgraph: Peer) -> None:
    asking = call("ask colour", "langgraph/ask")
    async with connected(langgraph) as (connection, _):
        asked = await connection.call(asking, ignore)
        assert isinstance(asked, InputRequired)
        assert text_of(asked.question) == "Which colour?"
        assert Leniency.QUESTION_IN_ARTIFACT in connection.reader.noted
        answer = Resume(answer=(TextPart(text="blue"),), state=asked.state)
        assert said(await connection.call(replace(asking, resume=answer), ignore)) == "echo blue"


async def ask_the_hub(tmp_path: Path, name: str, client: str) -> Any:
    """Run a client against the agent `clerk` of a hub that lets everybody in, and return what it printed."""
    python = await anyio.to_thread.run_sync(python_of, name)
    async with whole_hub(tmp_path, open_to_all=True) as hub:
        command = [str(python), str(HERE / "peers" / client), f"{hub.url}/agents/clerk", hub.key]
        with anyio.fail_after(60):
            done = await anyio.run_process(command, check=False, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)


async def test_adks_remote_agent_asks_the_hub(tmp_path: Path) -> None:
    heard = await ask_the_hub(tmp_path, "adk", "adk_client.py")
    assert heard["echo"][-1] == "hello"
    assert "Which colour?" in [*heard["ask"], *heard["answer"]]
    assert heard["answer"][-1] == "blue"


async def test_strands_a2a_agent_asks_the_hub_over_0_3(tmp_path: Path) -> None:
    heard = await ask_the_hub(tmp_path, "strands", "strands_client.py")
    assert (heard["name"], heard["echo"]) == ("clerk", "hello")
    assert heard["events"] > 3


async def test_microsofts_agent_framework_asks_the_hub(tmp_path: Path) -> None:
    heard = await ask_the_hub(tmp_path, "agent_framework", "agent_framework_client.py")
    assert heard == {"echo": "hello", "stream": "0 1 2 counted to 3", "ask": "Which colour?", "answer": "blue"}


@pytest.mark.skipif("INTERHUB_INTEROP" not in os.environ, reason="its environment has 830 MB: make interop")
async def test_crewai_asks_the_hub_over_0_3(tmp_path: Path) -> None:
    heard = await ask_the_hub(tmp_path, "crewai_a2a", "crewai_client.py")
    assert heard["echo"][0] == "TaskState.completed"
    assert heard["echo"][1].endswith("hello")
    assert heard["ask"] == ["TaskState.input_required", "Which colour?"]
