"""Events on their way: each subscription gets each event once, whatever happens meanwhile."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import anyio
import pytest
from sqlalchemy import update

from interhub.adapters import Call, Outcome, Report, text_of
from interhub.adapters.testing import ScriptedAgent, answer, asked
from interhub.agent_cards import Json
from interhub.hub.auth import LOCAL
from interhub.hub.errors import BadRequest, NotAllowed, PlanInvalid, TriggerExists, TriggerNotFound
from interhub.hub.supervisor.run import EventKind, Run
from interhub.hub.triggers.clock import Clock
from interhub.hub.triggers.events import Events
from interhub.hub.triggers.store import Delivery, Occurrence
from interhub.hub.triggers.triggers import Triggers
from interhub.registry.database import deliveries, writing
from tests.support.supervised import ALICE, BOB, parsed

from .conftest import ENV, Site, no_relay

pytestmark = pytest.mark.anyio

Sites: TypeAlias = Callable[..., AbstractAsyncContextManager[Site]]

ON_ORDER = """
kind: trigger
name: orders
event: order_placed
match: {shop.country: DE}
run: {agent: parrot, goal: "order {{ event.data.order }} of {{ event.data.shop.country }}"}
"""
WAITS_FOR = "steps: [{{id: paid, timeout_s: {timeout_s}, wait: {{event: {event}, match: {match}}}}}]"
IN_GERMANY: dict[str, Json] = {"order": 7, "shop": {"country": "DE"}}


def parrot() -> ScriptedAgent:
    async def play(call: Call, report: Report) -> Outcome:
        return answer(asked(call))

    return ScriptedAgent("parrot").on("say", play, description="say something")


async def runs_of(site: Site) -> list[Run]:
    with anyio.fail_after(10):
        return [await site.world.supervisor.wait(ALICE, run.id) for run in await site.world.supervisor.list(ALICE)]


async def test_an_event_begins_a_run_with_what_it_says_once(site: Sites) -> None:
    async with site(parrot()) as here:
        await here.triggers.add(ALICE, parsed(ON_ORDER))
        taken = await here.triggers.give(ALICE, "order_placed", IN_GERMANY, "e-1")
        again = await here.triggers.give(ALICE, "order_placed", IN_GERMANY, "e-1")
        await here.triggers.give(ALICE, "order_placed", {"order": 8, "shop": {"country": "FR"}}, "e-2")
        await here.triggers.give(ALICE, "order_lost", IN_GERMANY, "e-3")
        assert (taken.new, again.new) == (True, False)
        assert [one.begun for one in taken.deliveries] == [one.begun for one in again.deliveries]
        (run,) = await runs_of(here)
        assert text_of(run.parts) == "order 7 of DE"
        ((listed, last),) = await here.triggers.list(ALICE)
        assert last is not None
        assert (listed.id, last.state, last.begun) == ("orders", "done", (run.id,))


async def test_what_a_hub_left_open_when_it_died_is_delivered_by_the_next_and_only_once(any_site: Sites) -> None:
    async with any_site(parrot()) as here:
        one, _ = await here.triggers.add(ALICE, parsed(ON_ORDER))
        lost = Occurrence(tenant="default", source="", id="e-1", name="order_placed", data=IN_GERMANY)
        # The first died between taking and delivering, the second between delivering and noting that.
        assert await here.store.take(lost, ["", one.id])
        known = await here.triggers.give(ALICE, "order_placed", IN_GERMANY, "e-2")
        with writing(here.database) as connection:
            connection.execute(update(deliveries).values(state="open", begun=[], next_try_at=datetime.now(UTC)))
        assert known.deliveries
    async with any_site(parrot()) as here:
        assert await Events(here.store, here.hub).deliver_due(all_open=True) == 4
        assert await Events(here.store, here.hub).deliver_due(all_open=True) == 0
        assert len(await runs_of(here)) == 2


async def test_hubs_that_see_the_same_event_at_once_begin_one_run(any_site: Sites) -> None:
    async with any_site(parrot()) as here:
        await here.triggers.add(ALICE, parsed(ON_ORDER))
        event = Occurrence(tenant="default", source="", id="e-1", name="order_placed", data=IN_GERMANY)
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(Events(here.store, here.hub).take, event)
        assert len(await runs_of(here)) == 1


async def test_a_trigger_that_skips_begins_no_run_beside_one_of_its_own(any_site: Sites) -> None:
    done = anyio.Event()

    async def hold(call: Call, report: Report) -> Outcome:
        await done.wait()
        return answer("held")

    document = "{kind: trigger, name: one-by-one, event: tick, run: {agent: holder, goal: go, overlap: skip}}"
    async with any_site(ScriptedAgent("holder").on("hold", hold)) as here:
        await here.triggers.add(ALICE, parsed(document))

        async def tick() -> Delivery:
            taken = await here.triggers.give(ALICE, "tick", {})
            return next(one for one in taken.deliveries if one.subscription)

        first, second = await tick(), await tick()
        assert (first.state, second.state, second.begun) == ("done", "skipped", ())
        assert first.begun[0] in second.error
        done.set()
        await here.world.supervisor.wait(ALICE, first.begun[0], timeout_s=10)
        assert (await tick()).state == "done"
        assert len(await runs_of(here)) == 2


async def test_a_run_that_cannot_be_begun_is_told_and_not_tried_for_ever(site: Sites) -> None:
    async with site(parrot()) as here:
        await here.triggers.add(ALICE, parsed(ON_ORDER.replace("event.data.order }}", "event.data.no.such }}")))
        taken = await here.triggers.give(ALICE, "order_placed", IN_GERMANY)
        (failed,) = [one for one in taken.deliveries if one.subscription]
        assert failed.state == "failed"
        assert "no" in failed.error
        assert await Events(here.store, here.hub).deliver_due(all_open=True) == 0


async def test_an_event_that_comes_just_before_a_step_waits_for_it_reaches_that_step_and_no_second_one(
    site: Sites,
) -> None:
    given = anyio.Event()
    plan = """
    steps:
      - {id: order, call: {agent: shop, message: order}}
      - {id: paid, timeout_s: 20, wait: {event: order_paid, match: {order: 7}}}
      - {id: again, timeout_s: 1, on_error: continue, wait: {event: order_paid}}
    output: "{{ steps.paid.data.amount }}, then {{ steps.again.data.amount }}"
    """
    async with site() as nothing:
        await nothing.triggers.give(ALICE, "order_paid", {"order": 7, "amount": 1}, "before the run")

    async def play(call: Call, report: Report) -> Outcome:
        await given.wait()
        return answer("ordered")

    async with site(ScriptedAgent("shop").on("order", play)) as here:
        run = await here.world.run(workflow=plan)
        await here.triggers.give(ALICE, "order_paid", {"order": 8, "amount": 2}, "another's")
        await here.triggers.give(ALICE, "order_paid", {"order": 7, "amount": 3}, "early")
        given.set()
        run = await here.world.done(run)
        # `again` gets the other order's, which fits it; not the one that `paid` has had.
        assert text_of(run.parts) == "3, then 2"
        waits = [e for e in await here.world.supervisor.events(ALICE, run.id) if e.kind is EventKind.STEP_WAITING]
        assert len(waits) == 2


async def test_an_event_wakes_steps_that_wait_for_it_by_its_name(any_site: Sites) -> None:
    async with any_site(parrot()) as here:
        await here.triggers.add(ALICE, parsed("{kind: trigger, name: payments, webhook: {}, send: order_paid}"))
        run = await here.world.run(workflow="steps: [{id: paid, timeout_s: 20, wait: {event: order_paid}}]")
        with anyio.fail_after(10):
            async for event in here.world.supervisor.watch(ALICE, run.id):
                if event.kind is EventKind.STEP_WAITING:
                    break
        taken = await here.triggers.fire(ALICE, "payments", {"amount": 3})
        assert [one.begun for one in taken.deliveries] == [(run.id,)]
        assert (await here.world.done(run)).structured == {"amount": 3}


async def test_what_does_not_match_wakes_no_step_that_waits_nor_one_that_begins_to(site: Sites) -> None:
    given = anyio.Event()
    plan = """
    steps:
      - id: both
        parallel:
          - {id: at_once, timeout_s: 20, wait: {event: paid}}
          - {id: pay, call: {agent: shop, message: pay}}
      - {id: later, timeout_s: 0.2, wait: {event: paid}}
    """

    async def play(call: Call, report: Report) -> Outcome:
        await given.wait()
        return answer("ordered")

    hook = "{kind: trigger, name: paid, webhook: {verify: header, header: x}, match: {status: paid}}"
    async with site(ScriptedAgent("shop").on("pay", play)) as here:
        _, secret = await here.triggers.add(ALICE, parsed(hook))
        run = await here.world.run(workflow=plan)
        with anyio.fail_after(10):
            async for event in here.world.supervisor.watch(ALICE, run.id):
                if event.kind is EventKind.STEP_WAITING:
                    break
        failed = await here.triggers.hook("default", "paid", {"x": secret}, b'{"status": "failed"}')
        assert (failed.new, failed.deliveries) == (True, [])
        paid = await here.triggers.hook("default", "paid", {"x": secret}, b'{"status": "paid"}')
        assert [one.begun for one in paid.deliveries] == [(run.id,)]
        given.set()
        run = await here.world.done(run)
        assert run.error is not None
        assert (run.error.reason, run.error.message[:9]) == ("STEP_TIMEOUT", "the event")


@pytest.mark.parametrize(
    ("missed", "begun"),
    [("latest", ["2026-11-20T12:00"]), ("skip", []), ("all", [f"2026-11-20T{h}:00" for h in (10, 11, 12)])],
)
async def test_moments_at_which_no_hub_ran_count_as_the_schedule_says(
    site: Sites, missed: str, begun: list[str]
) -> None:
    async with site(parrot()) as here:
        document = f"""
        kind: trigger
        name: hourly
        schedule: {{cron: "0 * * * *", missed: {missed}}}
        run: {{agent: parrot, goal: "{{{{ event.data.scheduled_at }}}}"}}
        """
        one, _ = await here.triggers.add(ALICE, parsed(document))
        await here.store.remove(one.tenant, one.id)
        await here.store.add(replace(one, mark="2026-11-20T09:30:00.000000+00:00"), "")
        now = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
        clocks = [Clock(here.store, Events(here.store, here.hub), now=lambda: now) for _ in range(2)]
        # Two hubs, and each of them again: a moment is one event.
        for clock in clocks * 2:
            assert await clock.tick() == datetime(2026, 11, 20, 13, tzinfo=UTC)
        assert sorted(text_of(run.parts)[:16] for run in await runs_of(here)) == begun
        now += timedelta(minutes=30)
        for clock in clocks:
            await clock.tick()
        assert len(await runs_of(here)) == len(begun) + 1, "the moment that has come counts, whatever was missed"


async def test_a_trigger_is_its_owners_alone_and_there_once(site: Sites) -> None:
    async with site(parrot()) as here:
        await here.triggers.add(ALICE, parsed(ON_ORDER))
        with pytest.raises(TriggerExists):
            await here.triggers.add(ALICE, parsed(ON_ORDER))
        for verb in (here.triggers.remove, here.triggers.get):
            with pytest.raises(TriggerNotFound):
                await verb(BOB, "orders")
        with pytest.raises(TriggerNotFound, match="did you mean 'orders'"):
            await here.triggers.remove(ALICE, "order")
        assert await here.triggers.list(BOB) == []
        await here.triggers.remove(ALICE, "orders")
        assert (await here.triggers.give(ALICE, "order_placed", IN_GERMANY)).deliveries[0].begun == ()


async def test_fired_is_that_trigger_alone_whatever_it_matches(site: Sites) -> None:
    async with site(parrot()) as here:
        await here.triggers.add(ALICE, parsed(ON_ORDER.replace("of {{ event.data.shop.country }}", "fired")))
        await here.triggers.add(BOB, parsed("{kind: trigger, name: bobs, event: order_placed, run: {agent: parrot}}"))
        waits = await here.world.run(workflow=WAITS_FOR.format(event="order_placed", match="{}", timeout_s=0.3))
        taken = await here.triggers.fire(ALICE, "orders", {"order": 9})
        assert [one.subscription for one in taken.deliveries] == ["orders"]
        run, waited = await runs_of(here)
        assert text_of(run.parts) == "order 9 fired"
        assert waited.id == waits.id
        assert waited.error is not None, "who waits for the event is not woken"
        assert await here.world.supervisor.list(BOB) == ()


async def test_the_holder_of_the_hubs_own_key_looks_after_everybodys_triggers_but_fires_none(site: Sites) -> None:
    async with site(parrot()) as here:
        await here.triggers.add(ALICE, parsed(ON_ORDER))
        assert [one.owner.subject for one, _ in await here.triggers.list(LOCAL)] == ["alice"]
        with pytest.raises(NotAllowed, match="it acts on behalf of alice"):
            await here.triggers.fire(LOCAL, "orders", {})
        await here.triggers.remove(LOCAL, "orders")
        await here.triggers.add(BOB, parsed(ON_ORDER))


@pytest.mark.parametrize("run", [", run: {agent: parrot, goal: hello}", ""])
async def test_triggers_of_whom_the_hub_knows_no_more_do_nothing_and_say_why(site: Sites, run: str) -> None:
    async with site(parrot()) as here:
        secret = "${HOOK_SECRET}"
        hook = f"{{kind: trigger, name: hook, webhook: {{verify: header, header: x, secret: '{secret}'}}{run}}}"
        await here.triggers.add(ALICE, parsed(hook))
        await here.triggers.add(ALICE, parsed(ON_ORDER))
        left = Triggers(here.store, here.hub, no_relay, env=ENV, accepted=lambda principal: principal == BOB)
        waits = await here.world.run(workflow=WAITS_FOR.format(event="hook", match="{}", timeout_s=0.2))
        await left.hook("default", "hook", {"x": ENV["HOOK_SECRET"]}, b"{}")
        await left.give(BOB, "order_placed", IN_GERMANY)
        waits = await here.world.done(waits)
        assert waits.error is not None
        assert [run.id for run in await here.world.supervisor.list(ALICE)] == [waits.id]
        for _, last in await here.triggers.list(ALICE):
            assert last is not None
            assert last.state == "failed"
            assert "the key of alice, who added it, is not accepted any more" in last.error


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("{name: x, run: {goal: y}}", "exactly one of schedule, webhook, event, resource"),
        ("{name: X y, event: e, run: {goal: y}}", "name: 'X y' is none"),
        ("{name: x, event: e}", "run: is missing"),
        ("{name: x, event: e, run: {agent: parot}}", "did you mean 'parrot'"),
        ("{name: x, schedule: '61 * * * *', run: {goal: y}}", "schedule: minute '61'"),
        ("{name: x, schedule: {crn: '* * * * *'}, run: {goal: y}}", "did you mean 'cron'"),
        ("{name: x, event: e, run: {goal: '{{ evnt.data }}'}}", "'evnt' is not known"),
        ("{name: x, event: e, run: {goal: '{{ steps.a }}'}}", "there is no 'steps'; templates here see `event`"),
        ("{name: x, webhook: {verify: header}, run: {goal: y}}", "webhook.header: is missing"),
        ("{name: x, webhook: {secret: short}, run: {goal: y}}", "too short"),
        ("{name: x, webhook: {secret: '${NO_SUCH}'}}", "webhook.secret: the environment variable NO_SUCH is not set"),
        ("{name: x, webhook: {secret: '${NO_SUCH:-}'}}", "webhook.secret: ${NO_SUCH:-} is empty in the hub's"),
        ("{name: x, event: e, run: {workflow: {steps: [{id: a, call: {agent: nobody}}]}}}", "run.workflow.steps.a"),
        ("{name: x, event: e, colour: red, run: {goal: y}}", "colour: there is no such key"),
    ],
)
async def test_a_triggers_mistakes_are_told_by_their_places(site: Sites, document: str, told: str) -> None:
    async with site(parrot()) as here:
        with pytest.raises(PlanInvalid) as raised:
            await here.triggers.check(ALICE, parsed(document))
        assert told in str(raised.value)


async def test_an_event_that_is_none_is_refused(site: Sites) -> None:
    async with site() as here:
        with pytest.raises(BadRequest, match="no event's name"):
            await here.triggers.give(ALICE, "a b", {})
        with pytest.raises(BadRequest, match="256 KiB"):
            await here.triggers.give(ALICE, "ab", {"much": "x" * 300_000})
