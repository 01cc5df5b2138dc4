"""LangGraph agents in workers."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from interhub.adapters import (
    BadEndpoint,
    Call,
    Completed,
    Connection,
    DataPart,
    InputRequired,
    Outcome,
    Principal,
    Progress,
    RemoteRefused,
    RemoteUnavailable,
    Resume,
    TextPart,
    Update,
    Usage,
    ignore,
)
from interhub.adapters.testing import said
from interhub.agent_cards import AgentCard, Endpoint, Json
from tests.support.workers import AGENTS, EXAMPLES, runs, worker_adapter, worker_endpoint

pytestmark = pytest.mark.anyio

MORE = AGENTS / "langgraph_more.py"


def call(message: str = "", *, key: str = "run/1", context: str = "", **data: Json) -> Call:
    arguments: dict[str, Json] = {"message": message} if message else {}
    return Call(
        capability="",
        arguments={**arguments, **({"data": data} if data else {})},
        principal=Principal(subject="ann"),
        idempotency_key=key,
        context_id=context,
    )


@asynccontextmanager
async def connected(home: Path, endpoint: Endpoint, **environ: str) -> AsyncGenerator[Connection]:
    adapter = worker_adapter(home, **environ)
    async with adapter.connect(endpoint, card=AgentCard(name="it"), label="it") as connection:
        yield connection


def graph(name: str, env: dict[str, str] | None = None, **options: Json) -> Endpoint:
    return worker_endpoint("langgraph", f"{MORE}:{name}", env, **options)


async def test_a_chat_remembers_its_context_and_counts_its_tokens(tmp_path: Path) -> None:
    async with connected(tmp_path, graph("chat")) as connection:
        first = await connection.call(call("hello", key="1", context="c"), ignore)
        assert said(first) == "heard: hello"
        assert isinstance(first, Completed)
        assert first.usage == Usage(input_tokens=10, output_tokens=5)
        assert said(await connection.call(call("again", key="2", context="c"), ignore)) == "heard: hello | again"
        assert said(await connection.call(call("pay", key="3", context="d"), ignore)) == "heard: pay | paid 5"


async def test_another_principals_context_of_the_same_name_is_another(tmp_path: Path) -> None:
    async with connected(tmp_path, graph("chat")) as connection:
        await connection.call(call("secret", key="1", context="c"), ignore)
        theirs = replace(call("hello", key="2", context="c"), principal=Principal(subject="bob"))
        assert said(await connection.call(theirs, ignore)) == "heard: hello"


@pytest.mark.parametrize(("answer", "ended"), [("Approve!", "paid 5"), ("too dear", "too dear")])
async def test_a_tool_that_needs_approval_asks_for_it(answer: str, ended: str, tmp_path: Path) -> None:
    async with connected(tmp_path, graph("careful")) as connection:
        asked = await connection.call(call("pay"), ignore)
        assert isinstance(asked, InputRequired)
        assert "pay" in said(asked)
        assert asked.schema is not None
        resume = Resume(answer=(TextPart(text=answer),), state=asked.state)
        assert ended in said(await connection.call(replace(call("pay"), resume=resume), ignore))
        again = await connection.call(call("pay", key="other"), ignore)
        assert isinstance(again, InputRequired)
        form = Resume(answer=(DataPart(data={"decision": "reject", "message": "no"}),), state=again.state)
        assert "no" in said(await connection.call(replace(call("pay", key="other"), resume=form), ignore))


async def test_every_make_of_graph_is_taken(tmp_path: Path) -> None:
    async with connected(tmp_path, graph("uncompiled")) as connection:
        assert said(await connection.call(call("aye?"), ignore)) == "aye"
    async with connected(tmp_path, graph("shout")) as connection:
        assert said(await connection.call(call("hey"), ignore)) == "HEY"


async def test_a_finished_call_is_answered_from_memory_by_its_key(tmp_path: Path) -> None:
    log = tmp_path / "ran"
    async with connected(tmp_path, graph("counted")) as connection:
        for _ in range(2):
            await connection.call(call(first=str(log)), ignore)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(connection.call, call(key="same time", first=str(log)), ignore)
    assert log.read_text() == "ran\n" * 2


async def test_input_that_does_not_fit_is_refused_with_the_fields(tmp_path: Path) -> None:
    async with connected(tmp_path, graph("counted")) as connection:
        with pytest.raises(RemoteRefused, match="has no third; it has first, second, done"):
            await connection.call(call(third="x"), ignore)
        with pytest.raises(RemoteRefused, match="no field for a text; send data with first, second, done"):
            await connection.call(call("hello"), ignore)


async def test_an_agent_that_leaves_its_process_only_fails_its_call(tmp_path: Path) -> None:
    async with connected(tmp_path, graph("leaving")) as connection:
        for key in ("1", "2"):
            with pytest.raises(RemoteRefused, match="SystemExit: leaving"):
                await connection.call(call(key=key, first="x"), ignore)


async def test_a_call_that_ended_is_not_run_again_by_another_process(tmp_path: Path) -> None:
    log = tmp_path / "ran"
    outcomes: list[Outcome] = []
    for _ in range(2):
        async with connected(tmp_path, graph("counted")) as connection:
            outcomes.append(await connection.call(call(first=str(log)), ignore))
    assert outcomes[0] == outcomes[1]
    assert log.read_text() == "ran\n"


async def test_a_crash_is_unavailable_and_a_retry_goes_on_after_the_last_node_that_was_saved(tmp_path: Path) -> None:
    async with connected(tmp_path, graph("crashing")) as connection:
        request = call(first=str(tmp_path / "ran"))
        with pytest.raises(RemoteUnavailable, match="its process ended with exit code 3"):
            await connection.call(request, ignore)
        outcome: Outcome | None = None
        with anyio.fail_after(30):
            while outcome is None:
                with suppress(RemoteUnavailable):  # a process that crashed is not started again at once
                    outcome = await connection.call(request, ignore)
                await anyio.sleep(0.1)
        assert said(outcome) == "survived"
    assert (tmp_path / "ran").read_text() == "ran\n"


async def test_a_cancelled_plain_node_ends_with_its_process_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    running: list[int] = []
    async with connected(tmp_path, graph("stubborn")) as connection:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.call, call(first=str(pids)), ignore)
            with anyio.fail_after(20):
                while not await anyio.Path(pids).exists():  # noqa: ASYNC110 -- another process writes it
                    await anyio.sleep(0.02)
            running = [int(pid) for pid in pids.read_text().split()]
            assert all(map(runs, running))
            tasks.cancel_scope.cancel()
        with anyio.fail_after(2):
            while any(map(runs, running)):  # noqa: ASYNC110 -- another process's end can only be asked for
                await anyio.sleep(0.02)


async def test_a_worker_gets_nothing_of_the_hubs_secrets(tmp_path: Path) -> None:
    endpoint = graph("environment", {"GIVEN": "${HUB_SECRET:-}x", "PLAIN": "1"})
    async with connected(tmp_path, endpoint, HUB_SECRET="s", OTHER_SECRET="t") as connection:
        names = said(await connection.call(call(first="x"), ignore)).split()
    assert {"GIVEN", "PLAIN", "PATH"} <= set(names)
    assert not {"HUB_SECRET", "OTHER_SECRET"} & set(names)
    with pytest.raises(BadEndpoint, match="NOT_SET is not set"):
        async with connected(tmp_path, graph("chat", {"KEY": "${NOT_SET}"})):
            pass


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (str(AGENTS / "langgraph_broken.py"), r"No module named 'no_such_module_at_all'.*langgraph_broken\.py, line 6"),
        (f"{MORE}:nothing", "has no 'nothing'; of LangGraph graphs it has: chat"),
        (f"{MORE}:not_a_graph", "is int, not a LangGraph graph or a function making one"),
        (f"{MORE}:exiting", "SystemExit: I will not be made"),
        (str(MORE), "has chat.* of LangGraph graphs; name one"),
        ("/no/such/file.py:graph", "there is no such file"),
        ("no.such.module:graph", "No module named 'no'"),
    ],
)
async def test_a_target_that_cannot_be_used_is_said_so(target: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(BadEndpoint, match=why):
        await worker_adapter(tmp_path).describe(worker_endpoint("langgraph", target))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"framework": "fortran"}, "Input should be 'langgraph' or 'crewai'"),
        ({"processes": 0}, "processes: Input should be greater than or equal to 1"),
        ({"proceses": 2}, "proceses: Extra inputs"),
        ({"environment": "/no/such"}, "no Python environment"),
    ],
)
async def test_options_that_cannot_be_are_said_so(options: dict[str, Json], why: str, tmp_path: Path) -> None:
    endpoint = graph("chat")
    with pytest.raises(BadEndpoint, match=why):
        await worker_adapter(tmp_path).describe(replace(endpoint, options={**endpoint.options, **options}))


async def test_the_owner_may_name_the_skill(tmp_path: Path) -> None:
    skill: Json = {"name": "Chat about it", "description": "Chats.", "tags": ["talk"]}
    card = await worker_adapter(tmp_path).describe(graph("chat", skill=skill))
    (capability,) = card.capabilities
    assert (capability.name, capability.title) == ("Chat-about-it", "Chat about it")
    assert (capability.description, capability.tags) == ("Chats.", ("talk",))


async def test_the_example_makes_notes_on_what_it_is_given(tmp_path: Path) -> None:
    updates: list[Update] = []

    async def report(update: Update) -> None:
        updates.append(update)

    log = tmp_path / "log"
    endpoint = worker_endpoint(
        "langgraph", EXAMPLES / "langgraph_notes.py:graph", {"INTERHUB_EXAMPLE_LOG": os.fspath(log)}
    )
    async with connected(tmp_path, endpoint) as connection:
        outcome = await connection.call(call("the night ferry"), report)
    assert isinstance(outcome, Completed)
    assert said(outcome).startswith("Notes on the night ferry\n- what it is for: ")
    assert outcome.usage is not None
    assert Progress(text="noted how it works", done=2.0, total=3.0) in updates
    assert '"key": "run/1"' in log.read_text()
