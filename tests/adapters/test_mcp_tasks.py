"""An MCP server that answers with tasks, followed by the adapter: a real process over HTTP."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from interhub.adapters import (
    Call,
    Completed,
    Connection,
    DataPart,
    InputRequired,
    Outcome,
    Principal,
    Progress,
    RemoteRefused,
    Resume,
    TaskBound,
    Update,
    text_of,
)
from interhub.adapters.mcp import McpAdapter
from interhub.agent_cards import JsonObject, Kind
from tests.support.mcp_servers import ROOT, at, over_http

pytestmark = pytest.mark.anyio

SERVER = ROOT / "tests" / "support" / "mcp_tasks.py"


class Watcher:
    """Takes updates, and says when the first of a kind came."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self._heard: dict[type[object], anyio.Event] = {TaskBound: anyio.Event(), Progress: anyio.Event()}

    async def report(self, update: Update) -> None:
        self.updates.append(update)
        if type(update) in self._heard:
            self._heard[type(update)].set()

    async def bound(self) -> str:
        await self._heard[TaskBound].wait()
        return next(update.remote_task for update in self.updates if isinstance(update, TaskBound))

    async def progress(self) -> str:
        await self._heard[Progress].wait()
        return next(update.text for update in self.updates if isinstance(update, Progress))


def call(tool: str, *, resume: Resume | None = None, remote_task: str = "", timeout_s: float | None = None) -> Call:
    return Call(
        capability=tool,
        kind=Kind.TOOL,
        principal=Principal(subject="ann"),
        idempotency_key="k",
        resume=resume,
        remote_task=remote_task,
        timeout_s=timeout_s,
    )


@asynccontextmanager
async def upstream(tmp_path: Path, *more: str) -> AsyncGenerator[tuple[Connection, Path]]:
    log = tmp_path / "log"
    async with over_http(SERVER, "--log", str(log), *more) as url:
        adapter = McpAdapter()
        with anyio.fail_after(30):
            card = await adapter.describe(at(url))
            async with adapter.connect(at(url), card=card, label="up") as connection:
                yield connection, log


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("more", [(), ("--silent",)], ids=["told", "asked"])
async def test_a_task_is_bound_followed_and_completed(tmp_path: Path, more: tuple[str, ...]) -> None:
    async with upstream(tmp_path, *more) as (connection, log):
        watcher = Watcher()
        outcomes: list[Outcome] = []

        async def use() -> None:
            outcomes.append(await connection.call(call("gate"), watcher.report))

        async with anyio.create_task_group() as group:
            group.start_soon(use)
            assert (await watcher.bound()).startswith("task:")
            assert await watcher.progress() == "before the gate"
            await connection.call(call("open_gate"), watcher.report)
        (outcome,) = outcomes
        assert isinstance(outcome, Completed)
        assert text_of(outcome.parts) == "passed"
        assert lines(log) == ["call gate"]


@pytest.mark.parametrize("more", [(), ("--silent",)], ids=["told", "asked"])
async def test_what_a_task_asks_is_asked_together_and_answered_one_by_one(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    async with upstream(tmp_path, *more) as (connection, log):
        watcher = Watcher()
        asked = await connection.call(call("ask"), watcher.report)
        assert isinstance(asked, InputRequired)
        assert [(request.key, text_of(request.question)) for request in asked.requests] == [
            ("one", "First?"),
            ("two", "Second?"),
        ]
        given: JsonObject = {"one": {"said": "yes"}, "two": None}
        resume = Resume(answer=(DataPart(data=given),), state=asked.state)
        outcome = await connection.call(call("ask", resume=resume), watcher.report)
        assert isinstance(outcome, Completed)
        assert text_of(outcome.parts) == "one=yes, two=decline"
        assert lines(log) == ["call ask"]


async def test_a_call_of_an_earlier_process_is_taken_up_by_its_task(tmp_path: Path) -> None:
    async with over_http(SERVER, "--log", str(tmp_path / "log")) as url:
        adapter = McpAdapter()
        card = await adapter.describe(at(url))
        watcher = Watcher()
        with anyio.fail_after(30):
            async with adapter.connect(at(url), card=card, label="up") as first:
                asked = await first.call(call("ask"), watcher.report)
            assert isinstance(asked, InputRequired)
            async with adapter.connect(at(url), card=card, label="up") as second:
                again = await second.call(call("ask", remote_task=await watcher.bound()), Watcher().report)
                assert isinstance(again, InputRequired)
                gone = await second.call(call("ask", remote_task="task:none"), Watcher().report)
                assert isinstance(gone, InputRequired)
    assert lines(tmp_path / "log") == ["call ask", "call ask"]


async def test_a_call_that_nobody_wants_any_more_cancels_its_task(tmp_path: Path) -> None:
    async with upstream(tmp_path) as (connection, log):
        watcher = Watcher()
        async with anyio.create_task_group() as group:
            group.start_soon(connection.call, call("hold"), watcher.report)
            await watcher.bound()
            group.cancel_scope.cancel()
        task_id = await watcher.bound()
        with pytest.raises(RemoteRefused, match="cancel"):
            await connection.call(call("hold", remote_task=task_id), watcher.report)
        assert lines(log) == ["call hold", "cancelled hold"]


async def test_a_task_is_cancelled_by_its_id(tmp_path: Path) -> None:
    async with upstream(tmp_path) as (connection, log):
        watcher = Watcher()
        failures: list[str] = []

        async def use() -> None:
            try:
                await connection.call(call("hold"), watcher.report)
            except RemoteRefused as error:
                failures.append(str(error))

        async with anyio.create_task_group() as group:
            group.start_soon(use)
            await connection.cancel(await watcher.bound())
        assert "its task was cancelled" in failures[0]
        assert lines(log) == ["call hold", "cancelled hold"]


async def test_a_task_that_fails_is_refused_with_the_servers_own_code(tmp_path: Path) -> None:
    async with upstream(tmp_path) as (connection, _):
        with pytest.raises(RemoteRefused, match="it broke") as refused:
            await connection.call(call("break"), Watcher().report)
        assert refused.value.code == -32099


async def test_a_task_that_asks_for_what_is_not_offered_is_refused_and_cancelled(tmp_path: Path) -> None:
    async with upstream(tmp_path) as (connection, log):
        with pytest.raises(RemoteRefused, match="sampling/createMessage"):
            await connection.call(call("sample"), Watcher().report)
        with anyio.fail_after(5):
            while "cancelled sample" not in lines(log):  # the server cancels in its own time
                await connection.call(call("open_gate"), Watcher().report)
