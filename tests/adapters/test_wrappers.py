"""Deadline, retry, circuit breaker and limit, around a scripted connection."""

import pickle

import anyio
import pytest

from interhub.adapters import (
    Call,
    Completed,
    Principal,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
    Report,
    ignore,
)
from interhub.adapters.testing import ScriptedAgent, ScriptedConnection, Turn, answer, refused
from interhub.adapters.wrappers import Backoff, CircuitBreaker, CircuitOpen, Deadline, Limited, Retrying

pytestmark = pytest.mark.anyio

OUT = RemoteUnavailable("clerk", "out")


def call(timeout_s: float | None = None, remote_task: str = "") -> Call:
    return Call(
        capability="file",
        principal=Principal(subject="ann"),
        idempotency_key="run/1",
        timeout_s=timeout_s,
        remote_task=remote_task,
    )


class Hours:
    """A clock that is set by hand, and a sleep that sets it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def test_a_call_that_outlasts_its_time_is_a_timeout_and_the_agent_is_told() -> None:
    agent = ScriptedAgent("clerk").on("file", Turn(until=anyio.Event()))
    with pytest.raises(RemoteTimeout, match=r"clerk .* within 0\.01 s"):
        await Deadline(ScriptedConnection(agent), label="clerk").call(call(timeout_s=0.01), ignore)
    assert agent.canceled == ["run/1"]


async def test_a_call_without_a_time_of_its_own_gets_the_default() -> None:
    agent = ScriptedAgent("clerk").on("file", Turn(until=anyio.Event()))
    with pytest.raises(RemoteTimeout):
        await Deadline(ScriptedConnection(agent), label="clerk", default_s=0.01).call(call(), ignore)


async def test_what_could_not_be_reached_is_tried_again_with_the_same_key() -> None:
    hours = Hours()
    agent = ScriptedAgent("clerk").on("file", OUT, OUT, answer("filed"))
    retrying = Retrying(
        ScriptedConnection(agent), attempts=3, backoff=Backoff(first_s=1), sleep=hours.sleep, chance=lambda: 0.0
    )
    assert await retrying.call(call(), ignore) == answer("filed")
    assert [one.idempotency_key for one in agent.calls] == ["run/1"] * 3
    assert hours.slept == [0.5, 1.0]


async def test_the_last_failure_is_raised_and_a_refusal_at_once() -> None:
    hours = Hours()
    down = ScriptedAgent("clerk").on("file", OUT)
    with pytest.raises(RemoteUnavailable, match="out"):
        await Retrying(ScriptedConnection(down), attempts=4, sleep=hours.sleep).call(call(), ignore)
    assert len(down.calls) == 4
    full = ScriptedAgent("clerk").on("file", refused("full"))
    with pytest.raises(RemoteRefused, match="full"):
        await Retrying(ScriptedConnection(full), attempts=4, sleep=hours.sleep).call(call(), ignore)
    assert len(full.calls) == 1


async def test_a_retry_asks_for_the_task_that_the_first_attempt_was_bound_to() -> None:
    hours = Hours()
    agent = ScriptedAgent("clerk", keeps_tasks=True).on("file", OUT, answer("twice"))
    agent.tasks["clerk-task-1"] = answer("once")
    assert await Retrying(ScriptedConnection(agent), sleep=hours.sleep).call(call(), ignore) == answer("once")
    assert [one.remote_task for one in agent.calls] == ["", "clerk-task-1"]
    assert len(agent.executed) == 1


async def test_the_circuit_opens_after_failures_in_a_row_and_says_when_the_next_try_is() -> None:
    hours = Hours()
    agent = ScriptedAgent("clerk").on("file", OUT, OUT, OUT, answer("back"))
    breaker = CircuitBreaker(ScriptedConnection(agent), label="clerk", failures=3, rest_s=30, clock=hours)
    for _ in range(3):
        with pytest.raises(RemoteUnavailable):
            await breaker.call(call(), ignore)
    hours.now += 10
    with pytest.raises(CircuitOpen, match=r"failed 3 times in a row and is next tried in 20\.0 s; last error: out"):
        await breaker.call(call(), ignore)
    assert len(agent.calls) == 3
    hours.now += 20
    assert await breaker.call(call(), ignore) == answer("back")
    assert not breaker.is_open


async def test_a_half_open_circuit_lets_one_call_through() -> None:
    hours = Hours()
    gate = anyio.Event()
    agent = ScriptedAgent("clerk").on("file", OUT, Turn(until=gate, end=answer("back")))
    breaker = CircuitBreaker(ScriptedConnection(agent), label="clerk", failures=1, rest_s=30, clock=hours)
    with pytest.raises(RemoteUnavailable):
        await breaker.call(call(), ignore)
    hours.now += 30
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(breaker.call, call(), ignore)
        await agent.wait_for_calls(2)
        with pytest.raises(CircuitOpen):
            await breaker.call(call(), ignore)
        gate.set()
    assert not breaker.is_open


async def test_a_cancelled_trial_call_does_not_keep_the_circuit_open_for_ever() -> None:
    hours = Hours()
    agent = ScriptedAgent("clerk").on("file", OUT, Turn(until=anyio.Event()), answer("back"))
    breaker = CircuitBreaker(ScriptedConnection(agent), label="clerk", failures=1, rest_s=30, clock=hours)
    with pytest.raises(RemoteUnavailable):
        await breaker.call(call(), ignore)
    hours.now += 30
    with anyio.move_on_after(0.01):
        await breaker.call(call(), ignore)
    assert await breaker.call(call(), ignore) == answer("back")


async def test_refusals_do_not_open_the_circuit() -> None:
    agent = ScriptedAgent("clerk").on("file", refused("no"))
    breaker = CircuitBreaker(ScriptedConnection(agent), label="clerk", failures=1)
    for _ in range(3):
        with pytest.raises(RemoteRefused):
            await breaker.call(call(), ignore)
    assert not breaker.is_open


async def test_only_so_many_calls_run_at_once_and_none_is_lost() -> None:
    running: list[int] = []

    async def work(call: Call, report: Report) -> Completed:
        running.append(1)
        assert len(running) <= 2
        await anyio.lowlevel.checkpoint()
        running.pop()
        return Completed()

    agent = ScriptedAgent("clerk").on("file", work)
    limited = Limited(ScriptedConnection(agent), 2)
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(limited.call, call(), ignore)
    assert len(agent.calls) == 10


def test_errors_survive_the_durable_engine() -> None:
    for error in (CircuitOpen("clerk", 3, 20.0, "out"), RemoteTimeout("clerk", 2.0)):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_longest_wait_is_capped() -> None:
    backoff = Backoff(first_s=0.2, cap_s=10)
    assert backoff.wait_s(100_000, 0.99) <= 10
