"""Marks that calls carry, and what holds when one comes back."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from interhub.adapters import (
    Budget,
    Call,
    Completed,
    Lineage,
    Message,
    Outcome,
    Principal,
    Report,
    Role,
    TextPart,
    Usage,
    text_of,
)
from interhub.adapters.testing import ScriptedAgent, answer
from interhub.hub.errors import BudgetExceeded, DelegationLoop, NotAllowed
from interhub.hub.guards import Accounts, GuardLimits, Guards, MemoryAccounts, Spent, SqlAccounts, Ticket, lineage_of
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.run import Assignment, RunState
from interhub.registry import DatabaseAway
from interhub.registry.database import open_database
from tests.support.supervised import ALICE, World, echo, supervised

pytestmark = pytest.mark.anyio

KEY = b"k" * 32


def call(budget: Budget | None = None, *, key: str = "root/step", lineage: Lineage | None = None) -> Call:
    return Call(
        capability="talk",
        principal=ALICE,
        idempotency_key=key,
        budget=budget or Budget(),
        lineage=lineage or Lineage(),
    )


def back(guards: Guards, mark: str, who: Principal = ALICE) -> Ticket:
    ticket = guards.ticket(mark, who)
    assert ticket is not None
    return ticket


@pytest.fixture(params=["memory", "sql"])
def accounts(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Accounts]:
    if request.param == "memory":
        yield MemoryAccounts()
        return
    database = open_database(f"sqlite:///{tmp_path / 'interhub.db'}")
    yield SqlAccounts(database)
    database.dispose()


async def test_a_mark_that_was_changed_or_is_another_tenants_is_refused() -> None:
    guards = Guards(key=KEY)
    mark = guards.mark("a", call(Budget(depth=3)))
    version, name, sealed = mark.split(".")
    for forged in (
        f"{version}.{name}.{sealed[:-4]}AAAA",
        f"{version}.{name}.AAAA{sealed[4:]}",
        f"{version}.{name}.{sealed[:24]}",
        f"{version}.{name}.{sealed[:8]}",
        f"{version}.{name}",
    ):
        with pytest.raises(NotAllowed, match="changed on the way"):
            guards.ticket(forged, ALICE)
    with pytest.raises(NotAllowed, match="another tenant"):
        guards.ticket(mark, Principal(subject="alice", tenant="elsewhere"))


async def test_the_mark_of_another_hub_is_no_ticket_and_goes_on_beside_ours() -> None:
    ours, theirs = Guards(key=KEY), Guards(key=b"t" * 32)
    foreign = theirs.mark("x", call())
    assert ours.ticket(foreign, ALICE) is None
    both = f"{ours.mark('a', call())} {foreign}"
    again = ours.mark("b", call(lineage=lineage_of(back(ours, both))))
    assert back(theirs, again).trail == ("x",)


async def test_an_agent_is_not_called_below_itself_and_no_level_is_too_deep() -> None:
    guards = Guards(key=KEY)
    ticket = back(guards, guards.mark("a", call(Budget(depth=1))))
    with pytest.raises(DelegationLoop, match="a > a"):
        await guards.enter(ticket, "a")
    assert (await guards.enter(ticket, "b")).depth == 1
    below = call(Budget(depth=0), lineage=lineage_of(ticket))
    with pytest.raises(BudgetExceeded, match="levels of delegation"):
        await guards.enter(back(guards, guards.mark("b", below)), "c")


async def test_calls_below_a_call_are_counted_together_however_often_its_mark_comes_back(accounts: Accounts) -> None:
    guards = Guards(key=KEY, accounts=accounts)
    ticket = back(guards, guards.mark("a", call(Budget(depth=4, calls=3))))
    await guards.take(ticket.branch, ticket.budget)
    nested = call(Budget(depth=2), key="nested", lineage=lineage_of(ticket))
    inner = back(guards, guards.mark("b", nested))
    assert inner.branch == ticket.branch
    await guards.take(inner.branch, inner.budget)
    with pytest.raises(BudgetExceeded, match="limit of 2 calls"):
        await guards.take(ticket.branch, ticket.budget)
    assert (await guards.below(ticket.branch)).calls == 2


@pytest.mark.parametrize("alone", [True, False])
async def test_what_was_used_below_a_call_is_found_by_the_process_that_counted_it_and_by_the_next(
    tmp_path: Path, alone: bool
) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'interhub.db'}")
    first = Guards(key=KEY, accounts=SqlAccounts(database, alone=alone))
    ticket = back(first, first.mark("a", call(Budget(depth=4, calls=3))))
    assert not (await first.below(ticket.branch, begun_here=True)).any
    await first.take(ticket.branch, ticket.budget)
    second = Guards(key=KEY, accounts=SqlAccounts(database, alone=alone))
    assert (await first.below(ticket.branch, begun_here=True)).calls == 1
    assert (await second.below(ticket.branch)).calls == 1
    database.dispose()


async def test_one_agent_fans_out_only_so_far(accounts: Accounts) -> None:
    guards = Guards(key=KEY, accounts=accounts)
    ticket = back(guards, guards.mark("a", call(Budget(fan_out=2))))
    await guards.enter(ticket, "b")
    await guards.enter(ticket, "c")
    with pytest.raises(BudgetExceeded, match="calls by one agent"):
        await guards.enter(ticket, "d")


async def test_a_call_that_was_counted_passes_again_whatever_is_left(accounts: Accounts) -> None:
    now = [1000.0]
    guards = Guards(GuardLimits(wall_s=60), key=KEY, accounts=accounts, clock=lambda: now[0])
    ticket = back(guards, guards.mark("a", call(guards.budget(Budget(depth=4, calls=2)))))
    await guards.take(ticket.branch, ticket.budget, call="run/step")
    await guards.take(ticket.branch, ticket.budget, call="run/step")
    assert (await guards.below(ticket.branch)).calls == 1
    with pytest.raises(BudgetExceeded, match="limit of 1 call"):
        await guards.take(ticket.branch, ticket.budget, call="run/other")
    now[0] += 61
    await guards.take(ticket.branch, ticket.budget, call="run/step")
    with pytest.raises(BudgetExceeded, match="60 seconds"):
        await guards.take(ticket.branch, ticket.budget, call="run/other")


async def test_time_runs_out_for_the_whole_tree() -> None:
    now = [1000.0]
    guards = Guards(GuardLimits(wall_s=60), key=KEY, clock=lambda: now[0])
    ticket = back(guards, guards.mark("a", call(guards.budget())))
    now[0] += 61
    with pytest.raises(BudgetExceeded, match="60 seconds"):
        await guards.enter(ticket, "b")


async def test_who_must_bring_a_mark_is_refused_without_one() -> None:
    guards = Guards(GuardLimits(marked=("bot-*",)), key=KEY)
    assert guards.ticket("", ALICE) is None
    with pytest.raises(NotAllowed, match="pass on"):
        guards.ticket("", Principal(subject="bot-1"))


async def test_callers_may_only_ask_for_less() -> None:
    guards = Guards(GuardLimits(depth=4, calls=10))
    asked = Budget(depth=64, calls=1000, tokens=5)
    assert guards.budget(asked) == Budget(depth=4, calls=10, tokens=5, fan_out=1000)


async def test_agents_that_call_the_hub_in_a_circle_end_in_a_clear_failure(tmp_path: Path, engine: DbosEngine) -> None:
    worlds: list[World] = []

    def caller(name: str, other: str) -> ScriptedAgent:
        async def play(one: Call, report: Report) -> Outcome:
            goal = Message(role=Role.USER, parts=(TextPart(text="go on"),))
            supervisor = worlds[0].supervisor
            run = await supervisor.submit(Assignment(principal=ALICE, goal=goal, agent_id=other, mark=one.mark))
            run = await supervisor.wait(ALICE, run.id, timeout_s=20)
            return answer(f"{name} heard: {run.error.message if run.error else run.state}")

        return ScriptedAgent(name).on("talk", play)

    async with supervised(tmp_path, caller("ping", "pong"), caller("pong", "ping"), engine=engine) as world:
        worlds.append(world)
        run = await world.done(await world.run("begin", agent="ping"))
    assert run.state is RunState.COMPLETED
    assert "circle: ping > pong > ping" in str(run.parts)


async def test_the_same_assignment_again_is_the_same_run_though_its_agent_may_call_no_more(
    tmp_path: Path, engine: DbosEngine
) -> None:
    guards = Guards(key=KEY)
    assignment = Assignment(
        principal=ALICE,
        goal=Message(role=Role.USER, parts=(TextPart(text="hello"),)),
        agent_id="worker",
        idempotency_key="once",
        mark=guards.mark("front", call(Budget(depth=4, fan_out=1))),
    )
    async with supervised(tmp_path, echo("worker"), engine=engine, guards=guards) as world:
        run = await world.supervisor.submit(assignment)
        again = await world.supervisor.submit(assignment)
        assert again.id == run.id
        with pytest.raises(BudgetExceeded, match="calls by one agent"):
            await world.supervisor.submit(replace(assignment, idempotency_key="another"))


async def test_a_call_below_another_is_taken_up_again_though_it_was_the_last_that_was_left(tmp_path: Path) -> None:
    begun = anyio.Event()
    guards = Guards(key=KEY)
    assignment = Assignment(
        principal=ALICE,
        goal=Message(role=Role.USER, parts=(TextPart(text="go on"),)),
        agent_id="worker",
        mark=guards.mark("front", call(Budget(depth=4, calls=2))),
    )

    async def work(one: Call, report: Report) -> Outcome:
        if begun.is_set():
            return answer("done")
        begun.set()
        await anyio.sleep_forever()
        raise AssertionError

    worker = ScriptedAgent("worker").on("talk", work)
    with anyio.fail_after(20):
        async with supervised(tmp_path, worker, engine=own_engine(tmp_path), guards=guards) as world:
            run = await world.supervisor.submit(assignment)
            await begun.wait()
        async with supervised(tmp_path, worker, engine=own_engine(tmp_path), guards=guards) as world:
            run = await world.done(run)
    assert (run.error, text_of(run.parts)) == (None, "done")


class Interrupted:
    """Accounts on a server that restarts: what a run does with them fails the first time."""

    def __init__(self) -> None:
        self._accounts = MemoryAccounts()
        self.failed: list[str] = []

    def take(self, key: str, calls: int, limits: Budget, once: str = "") -> tuple[str, float] | None:
        if calls and not key.endswith("<"):  # those are looked at when a call comes back to the hub
            self._fail("take")
        return self._accounts.take(key, calls, limits, once)

    def add(self, key: str, usage: Usage) -> None:
        self._fail("add")
        self._accounts.add(key, usage)

    def spent(self, key: str) -> Spent:
        self._fail("spent")
        return self._accounts.spent(key)

    def untouched(self, key: str) -> bool:
        return self._accounts.untouched(key)

    def _fail(self, what: str) -> None:
        if what not in self.failed:
            self.failed.append(what)
            raise DatabaseAway("postgresql://", "terminating connection due to administrator command")


async def test_a_server_that_restarts_while_accounts_are_looked_at_fails_no_run(
    tmp_path: Path, engine: DbosEngine
) -> None:
    worlds: list[World] = []

    async def pass_on(one: Call, report: Report) -> Outcome:
        goal = Message(role=Role.USER, parts=(TextPart(text="go on"),))
        supervisor = worlds[0].supervisor
        run = await supervisor.submit(Assignment(principal=ALICE, goal=goal, agent_id="crew", mark=one.mark))
        run = await supervisor.wait(ALICE, run.id, timeout_s=20)
        return answer(str(run.error or run.state))

    async def work(one: Call, report: Report) -> Outcome:
        return Completed(parts=(TextPart(text="done"),), usage=Usage(input_tokens=7))

    accounts = Interrupted()
    agents = (ScriptedAgent("front").on("talk", pass_on), ScriptedAgent("worker").on("talk", work))
    team = "{kind: team, name: crew, members: [worker], planner: route}"
    async with supervised(
        tmp_path, *agents, engine=engine, documents=(team,), guards=Guards(accounts=accounts)
    ) as world:
        worlds.append(world)
        run = await world.done(await world.run("begin", agent="front"))
    assert (run.state, text_of(run.parts)) == (RunState.COMPLETED, "completed"), run.error
    assert sorted(accounts.failed) == ["add", "spent", "take"]


def own_engine(directory: Path) -> DbosEngine:
    return DbosEngine(f"sqlite:///{directory / 'engine.db'}")


@pytest.fixture
def engine(tmp_path: Path) -> DbosEngine:
    return own_engine(tmp_path)
