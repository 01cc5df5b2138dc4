"""The supervisor: takes assignments, keeps runs going, and tells how they stand."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar
from uuid import NAMESPACE_URL, uuid4, uuid5

import anyio
import anyio.to_thread
import sqlalchemy as sa
import structlog

from interhub.adapters import (
    Adapter,
    Call,
    Completed,
    InputRequired,
    Outcome,
    Principal,
    Report,
    TextPart,
    text_of,
)
from interhub.agent_cards import AgentCard, Binding, Endpoint, Json, JsonObject
from interhub.hub.bus import Bus, NoBus
from interhub.hub.dispatch import Dispatcher
from interhub.hub.errors import NotAllowed, PlanInvalid, RunEnded, RunNotFound, RunUnderWay
from interhub.hub.guards import lineage_of
from interhub.hub.policy import Allow, Ask, Deny
from interhub.registry import Agent, Registry
from interhub.registry.database import reading
from interhub.registry.search import Index

from . import records
from .approvals import Approvals
from .asking import ANSWER_WITHIN_S
from .blobs import load_blob
from .canceller import Canceller
from .delegation import Delegator
from .durable import Engine, EngineState
from .envelope import StepValue, assignment_to_json, failed_because, mapping, number, text
from .facts import final_fact
from .interpreter import Interpreter, task_of
from .journal import Fact, Journal, state_after
from .llm import Models
from .model import Plan
from .order import direct_digest
from .pauses import Pauses
from .plan_check import check_plan
from .planner import Planners, agent_workflow, declared, standard_planners, workflow_inputs
from .planning import Planning
from .recalls import Recalls
from .records import QuestionRecord, RunRecord
from .rerun import collected, dumped, use_blobs
from .router import Router
from .run import Answer, Approval, Assignment, Event, EventKind, Run, RunFilter, RunPage, RunState
from .short import UNRECORDED, ShortRuns, is_short
from .slots import Slots
from .story import Story, final_kind, view
from .teams import TEAM, WORKFLOW, SupervisedAdapter, SupervisedConnection, agent_of_document
from .waits import Signal, Signals

log = structlog.get_logger()

T = TypeVar("T")

CANCEL_WITHIN_S = 2.0
"""How long a cancelled run's steps may take to tell their agents."""

KEPT_STORIES = 256
KEPT_OWNERS = 4096


class Supervisor:
    """Runs, on behalf of principals. `start` it on the server's event loop; `stop` it before the pool is closed."""

    def __init__(
        self,
        *,
        registry: Registry,
        index: Index,
        dispatcher: Dispatcher,
        database: sa.Engine,
        engine: Engine,
        planners: Planners | None = None,
        bus: Bus | None = None,
        slots: Slots | None = None,
        models: Models | None = None,
        short_runs: bool = False,
        answer_within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        """`engine` is the supervisor's alone. `planners` replace the standard ones.

        `models` plan, and write the arguments of tools, where they are set to; nothing here needs one.

        `bus` joins the replicas that share the database; it is opened after the supervisor is made. `slots` are for
        the calls that runs make. `short_runs` allows runs without records of the engine's (see `short`): for a process
        that shares its database with no other, and whose engine limits no runs.
        """
        bus, models = bus or NoBus(), models or Models()
        self._registry = registry
        self._dispatcher = dispatcher
        self._models = models
        self._answer_within_s = answer_within_s
        self._database = database
        self._engine = engine
        self._journal = Journal(database, bus)
        router = Router(registry=registry, index=index, dispatcher=dispatcher, writes=bool(models.writer))
        self._delegator = Delegator(
            registry=registry,
            router=router,
            dispatcher=dispatcher,
            journal=self._journal,
            database=database,
            slots=slots,
            models=models,
        )
        planning = Planning(
            planners=planners or standard_planners(registry, router, models),
            router=router,
            registry=registry,
            models=models,
            consulting=self._delegator.consulting,
        )
        self._signals = Signals(journal=self._journal, engine=engine, database=database)
        self._pauses = Pauses(journal=self._journal, database=database, bus=bus)
        self._recalls = Recalls(registry=registry, dispatcher=dispatcher, database=database, within_s=CANCEL_WITHIN_S)
        self._interpreter = Interpreter(
            planning=planning,
            delegator=self._delegator,
            journal=self._journal,
            signals=self._signals,
            pauses=self._pauses,
            recalls=self._recalls,
            database=database,
        )
        self._approvals = Approvals(journal=self._journal, engine=engine, database=database, audit=dispatcher.audit)
        self._canceller = Canceller(
            engine=engine, leaves=self._delegator.leaves, journal=self._journal, bus=bus, within_s=CANCEL_WITHIN_S
        )
        self._short = ShortRuns(self._interpreter.execute, self._interpreter.crashed, engine) if short_runs else None
        self._stories: OrderedDict[str, Story] = OrderedDict()
        self._owners: OrderedDict[str, tuple[str, str]] = OrderedDict()
        """Tenant and subject of the runs that were begun here last; a run never changes its owner."""
        self._begun: OrderedDict[str, RunRecord] = OrderedDict()
        """The rows of the runs that were begun here last, as they were written then."""
        self._starting: dict[str, asyncio.Task[None]] = {}
        """What is being handed to the engine."""
        self._adapters = {name: SupervisedAdapter(name, self) for name in (TEAM, WORKFLOW)}

    # Life

    async def start(self) -> None:
        """Launch the engine, which takes up the runs of an earlier process, and mend a journal that lags behind it."""
        self._journal.open()
        await self._pauses.load()
        await self._engine.launch(self._interpreter.execute, self._interpreter.crashed)
        await self.mend()

    async def stop(self) -> None:
        """Stop. Runs under way are taken up by the next process; their agents are told to stop what they do."""
        if self._starting:
            await asyncio.wait(list(self._starting.values()))
        await self._delegator.leaves.stop(within_s=CANCEL_WITHIN_S)
        if self._short is not None:
            await self._short.stop()
        await self._engine.stop()
        await self._recalls.stop()
        await self._models.close()
        await self._journal.close()

    def adapters(self) -> Mapping[str, Adapter]:
        """Return the adapters that teams and workflows are called through, by name."""
        return self._adapters

    async def agent_of_document(
        self, tenant: str, document: JsonObject, source: str
    ) -> tuple[str, AgentCard, Endpoint]:
        """Return the adapter's name, the card and the endpoint of a team's or workflow's document.

        Raises:
            PlanInvalid: the document has mistakes.
        """
        return await self._with_agents(tenant, lambda agents: agent_of_document(document, source=source, agents=agents))

    async def check(self, document: JsonObject, principal: Principal, *, source: str = "the workflow") -> Plan:
        """Return a workflow's document as a plan, checked against the agents that the caller may use.

        Raises:
            PlanInvalid: it has mistakes.
        """
        return await self._with_agents(
            principal.tenant, lambda agents: check_plan(document, source=source, agents=agents)
        )

    # Runs

    async def submit(self, assignment: Assignment) -> Run:
        """Begin a run. A second assignment of the same principal with the same key is the same run.

        Raises:
            PlanInvalid: its workflow has mistakes.
            BadRequest: its inputs do not fit the workflow.
            AgentNotFound: whom it is delegated to is not there.
        """
        assignment = await self._checked(assignment)
        run_id = self._id_of(assignment)
        short: ShortRuns | None = None
        record: RunRecord | None = None
        # Guards count each call that comes back to the hub, and so must not see one again that they have let in.
        if not (assignment.mark and assignment.idempotency_key and await self._record(run_id)):
            assignment = await self._guarded(assignment)
            short = self._short if await self._is_short(assignment) else None
            record = await self._create(run_id, assignment, unrecorded=short is not None)
        if record is None:  # it was begun before, under the same key
            # Before it is read: it may end meanwhile.
            under_way = run_id in self._starting or (self._short is not None and run_id in self._short)
            short = None
            record = await self._record(run_id)
            assert record is not None, "a run that was written is there"
            if under_way or record.state is not RunState.SUBMITTED:
                return await self.get(assignment.principal, run_id)
        self._owners[run_id] = (record.tenant, record.subject)
        while len(self._owners) > KEPT_OWNERS:
            self._owners.popitem(last=False)
        self._begun[run_id] = record
        while len(self._begun) > KEPT_STORIES:
            self._begun.popitem(last=False)
        if short is not None:
            short.begin(run_id, record.spec, tenant=record.tenant)
        elif self._short is not None and assignment.waited:
            # It is written, and so it will be begun: whoever follows it need not wait for the engine's own record.
            self._starting[run_id] = asyncio.ensure_future(self._start(record))
        else:
            await self._engine.start(run_id, record.spec, tenant=record.tenant)
        return view(record, None, (), None)

    async def _start(self, record: RunRecord) -> None:
        try:
            await self._engine.start(record.id, record.spec, tenant=record.tenant)
        except Exception as error:
            log.exception("run_not_started", run_id=record.id)
            await self._interpreter.crashed(record.id, record.spec, error)
        finally:
            del self._starting[record.id]

    async def keep(self, assignment: Assignment, outcome: Completed) -> str:
        """Keep what a call outside of any run gave, as a run that has ended and has no events; returns its id."""
        run_id = str(uuid4())
        record = self._row_of(run_id, assignment)
        data = dumped(StepValue.of(outcome).dump())

        def write(connection: sa.Connection) -> bool:
            blob = records.put_blob(connection, data, record.created_at, run_id=run_id)
            gave: dict[str, Json] = {"result": {"blob": blob}}
            ended = replace(record, state=RunState.COMPLETED, outcome=gave, ended_at=record.created_at)
            return records.add_run(connection, ended)

        await self._journal.write(write)
        return run_id

    async def ask_first(self, agent: Agent, call: Call, report: Report) -> Outcome:
        """Make a call that a person must approve, outside of any run: it becomes a run, whose question is the outcome.

        The answer is good for this very call once: with other arguments, or for another agent, it is asked anew.

        Raises:
            AdapterError: the agent failed, or the answer was refused.
        """
        bound = direct_digest(agent, call)
        state = mapping(call.resume.state if call.resume is not None else None)
        resume = call.resume if state.get("call") == bound else None
        call = replace(call, resume=resume, idempotency_key=f"{call.idempotency_key}#{bound}")
        outcome = await SupervisedConnection(self, agent.id, directly=True).call(call, report)
        if isinstance(outcome, InputRequired):
            return replace(outcome, state={**mapping(outcome.state), "call": bound})
        return outcome

    async def get(self, principal: Principal, run_id: str) -> Run:
        """Return a run as it stands.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
        """
        return await self._shown(await self._owned(principal, run_id))

    async def _shown(self, record: RunRecord) -> Run:
        while True:
            story = await self._story(record.id, record.generation)
            if record.state.interrupted or (record.state is RunState.COMPLETED and _blob_of(record)):
                asked, result = await anyio.to_thread.run_sync(self._details, record)
            else:
                asked, result = self._details(record)
            if story.seq <= record.generation:
                paused = self._pauses.paused(record.id)
                return view(record, story, records.open_questions(asked), result, paused=paused)
            # Others read the same story, and went on with it: what follows after the generation must not be in it.
            newer = await self._record(record.id)
            if newer is None:
                raise RunNotFound(record.id)
            record = newer

    async def list(
        self,
        principal: Principal,
        *,
        state: RunState | None = None,
        context_id: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> tuple[Run, ...]:
        """Return the caller's runs, newest first, without their steps. `before` is the id of the last one seen.

        Raises:
            RunNotFound: `before` is none of the caller's.
        """
        last = await self._owned(principal, before) if before else None

        def read() -> tuple[Run, ...]:
            with reading(self._database) as connection:
                found = records.list_runs(
                    connection,
                    tenant=principal.tenant,
                    subject=principal.subject,
                    state=state,
                    context_id=context_id,
                    limit=limit,
                    before=last,
                )
                asking = [record.id for record in found if record.state.interrupted]
                asked = records.questions_of(connection, asking, state="open") if asking else []
            return tuple(
                view(record, None, [one.question for one in asked if one.question.run_id == record.id], None)
                for record in found
            )

        return await anyio.to_thread.run_sync(read)

    async def page(
        self, principal: Principal, wanted: RunFilter, *, after: tuple[datetime, str] | None = None, limit: int = 50
    ) -> RunPage:
        """Return the caller's runs that a filter wants, those that changed last first.

        `after` is when the last run of the page before changed (`Run.updated_at`), and its id. A run that changes
        between two pages is found on neither or on both, as with every cursor over something that moves.
        """

        def read() -> RunPage:
            with reading(self._database) as connection:
                found, total = records.page_runs(
                    connection,
                    tenant=principal.tenant,
                    subject=principal.subject,
                    wanted=wanted,
                    after=after,
                    limit=limit + 1,
                )
                asking = [record.id for record in found[:limit] if record.state.interrupted]
                asked = records.questions_of(connection, asking, state="open") if asking else []
            runs = tuple(
                view(record, None, [one.question for one in asked if one.question.run_id == record.id], None)
                for record in found[:limit]
            )
            return RunPage(runs=runs, total=total, more=len(found) > limit)

        return await anyio.to_thread.run_sync(read)

    async def events(self, principal: Principal, run_id: str, after: int = 0, limit: int = 1000) -> tuple[Event, ...]:
        """Return what has happened in a run after a sequence number, in order.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
        """
        await self._check_owner(principal, run_id)
        if (state := self._journal.state(run_id)) is not None and state.ended:
            return await self._journal.read(run_id, after=after, limit=limit)  # nobody adds anything to it
        record = await self._owned(principal, run_id)
        found = await self._journal.read(run_id, after=after, limit=limit)
        # What another replica has just written may not have been heard of yet.
        while found and len(found) < limit and found[-1].seq < record.generation:
            more = await self._journal.read(run_id, after=found[-1].seq, limit=limit - len(found))
            if not more:
                break
            found += more
        return found

    async def dialogue(self, principal: Principal, run_id: str, upto: int | None = None) -> tuple[Event, ...]:
        """Return the events of a run's questions, up to a sequence number, in order: asked, answered and closed.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
        """
        await self._check_owner(principal, run_id)
        return await self._journal.dialogue(run_id, upto=upto)

    async def watch(self, principal: Principal, run_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Yield what happens in a run after a sequence number; ends after the final event.

        Nothing is held between two events, so a reader may be slow, or go away; it loses nothing.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
        """
        await self._check_owner(principal, run_id)
        while True:
            news = self._journal.subscription(run_id)
            found = await self._journal.news(run_id, after=after, limit=500)
            for event in found:
                after = event.seq
                yield event
                if final_kind(event.kind):
                    return
            if not found:
                state = self._journal.state(run_id)
                if state is None:
                    record = await self._owned(principal, run_id)
                    if record.generation > after:
                        continue  # it was written since we read
                    state = record.state
                if state.ended:
                    return  # it was asked for what comes after the final event
                await news.wait()

    async def wait(self, principal: Principal, run_id: str, timeout_s: float | None = None) -> Run:
        """Return a run when it has ended or asks something, or as it stands when the time is up.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
        """
        await self._check_owner(principal, run_id)
        with anyio.move_on_after(timeout_s):
            while True:
                news = self._journal.subscription(run_id)
                state = self._journal.state(run_id) or (await self._owned(principal, run_id)).state
                if state.ended or state.interrupted:
                    ended = self._ended_now(run_id)
                    run = await (self._shown(ended) if ended is not None else self.get(principal, run_id))
                    if run.state.ended or run.state.interrupted:
                        return run
                    continue  # it was answered meanwhile, by somebody who waited for the same
                await news.wait()
        return await self.get(principal, run_id)

    async def wait_for_news(self, run_id: str, after: int) -> None:
        """Return when a run has events after a number, or has ended."""
        while True:
            news = self._journal.subscription(run_id)
            record = await self._record(run_id)
            if record is None or record.generation > after or record.state.ended:
                return
            await news.wait()

    async def cancel(self, principal: Principal, run_id: str) -> Run:
        """Stop a run, down to its last leaf. Agents at work are told, and have two seconds to take note.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
            RunEnded: it has ended.
        """
        record = await self._owned(principal, run_id)
        if record.state.ended:
            raise RunEnded(run_id, record.state.value)
        if (starting := self._starting.get(run_id)) is not None:
            await asyncio.wait([starting])
        await self._canceller.stop(run_id)
        if self._short is not None:
            await self._short.cancel(run_id)
        # What was under way has told its agents. Those that ask, or are just about to, have not heard of it yet.
        await self._journal.flush()
        stopped = await self.get(principal, run_id)
        await self._recalls.of_run(record, but=[step.path for step in stopped.steps if step.state.ended])
        await self._journal.append(
            Fact(run_id=run_id, kind=EventKind.RUN_CANCELED, payload={"by": principal.key, "why": "canceled"})
        )
        await self._pauses.drop(run_id)
        run = await self.get(principal, run_id)
        if run.state is not RunState.CANCELED:  # its end was written while we asked
            raise RunEnded(run_id, run.state.value)
        return run

    async def pause(self, principal: Principal, run_id: str) -> Run:
        """Have a run begin no further step; what is under way ends. One that is paused stays so.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
            RunEnded: it has ended.
        """
        record = await self._owned(principal, run_id)
        if record.state.ended:
            raise RunEnded(run_id, record.state.value)
        await self._pauses.pause(run_id, principal)
        run = await self.get(principal, run_id)
        if run.state.ended:  # its end was written while we asked
            await self._pauses.drop(run_id)
            raise RunEnded(run_id, run.state.value)
        return run

    async def resume(self, principal: Principal, run_id: str) -> Run:
        """Let a paused run go on; one that is not paused goes on as it does.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
            RunEnded: it has ended.
        """
        record = await self._owned(principal, run_id)
        if record.state.ended:
            raise RunEnded(run_id, record.state.value)
        await self._pauses.resume(run_id, principal)
        return await self.get(principal, run_id)

    async def rerun(self, principal: Principal, run_id: str, from_step: str) -> Run:
        """Begin a new run that does an ended one again from a step on, and takes over what came before.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
            RunUnderWay: it has not ended.
            BadRequest: its plan has no such step.
        """
        record = await self._owned(principal, run_id)
        if not record.state.ended:
            raise RunUnderWay(run_id, record.state.value)
        story = await self._story(run_id, record.generation)
        planned = declared(task_of(record.spec))
        kept = await collected(record, story.ordered(), planned, from_step, self._engine, self._database)
        data, new_id, at = dumped(kept), str(uuid4()), datetime.now(UTC)

        def keep(connection: sa.Connection) -> str:
            use_blobs(connection, new_id, kept)
            return records.put_blob(connection, data, at, run_id=new_id)

        blob = await self._journal.write(keep)
        spec: dict[str, Json] = {
            **record.spec,
            "root": new_id,
            "key": "",
            "new_context": False,
            "earlier": {"run": run_id, "from": from_step, "blob": blob},
        }
        if "wall_s" in spec and "lineage" not in spec:
            # It has its time anew; only one within another's tree stays within the time of that.
            spec["budget"] = {**mapping(spec.get("budget")), "until": at.timestamp() + number(spec, "wall_s")}
        fresh = replace(
            record,
            id=new_id,
            spec=spec,
            state=RunState.SUBMITTED,
            outcome=None,
            created_at=at,
            updated_at=at,
            ended_at=None,
            generation=0,
        )
        payload: dict[str, Json] = {
            "goal": record.goal,
            "agent": record.agent_id,
            "workflow": text(mapping(record.spec.get("workflow")), "name"),
            "context_id": record.context_id,
            "rerun_of": run_id,
            "rerun_from": from_step,
        }
        await self._write(fresh, payload)
        await self._engine.start(new_id, spec, tenant=record.tenant)
        return view(replace(fresh, generation=1), None, (), None)

    async def answer(self, principal: Principal, run_id: str, answer: Answer, question_id: str = "") -> Run:
        """Answer what a run asks; without a question's id, the one that is open. The first answer counts.

        Who may answer but does not own the run is told how it stands, without its steps and results.

        Raises:
            RunNotFound: there is none of that id, or it is neither the principal's nor asks it anything.
            QuestionNotFound: nothing is asked, several things are, somebody was first, or it has expired.
            NotAllowed: it is for others to answer.
            BadRequest: the answer does not fit the question's schema.
        """
        record = await self._record(run_id)
        asked: Sequence[QuestionRecord] = ()
        if record is not None and record.tenant == principal.tenant:
            asked = await anyio.to_thread.run_sync(self._approvals.of_run, run_id)
        owns = record is not None and (record.tenant, record.subject) == (principal.tenant, principal.subject)
        if record is None or not (owns or any(one.question.is_for(principal) for one in asked)):
            raise RunNotFound(run_id)
        if not owns:
            asked = [one for one in asked if one.question.is_for(principal)]
        await self._approvals.answer(run_id, answer, question_id=question_id, asked=asked)
        if owns:
            return await self.get(principal, run_id)
        return view(await self._record(run_id) or record, None, (), None)

    async def approvals(
        self, principal: Principal, *, state: str | None = "open", question_id: str = "", limit: int = 100
    ) -> tuple[Approval, ...]:
        """Return the questions that the caller may answer, and those of its own runs, newest first.

        `state` is `open`, `answered`, `closed` or `expired`; None is any.
        """
        return await self._approvals.listed(principal, state=state, question_id=question_id, limit=limit)

    async def deliver(self, signal: Signal) -> tuple[str, ...]:
        """Deliver an event to every step that waits for it, of all the tenant's runs; returns these runs' ids.

        The same event again reaches nobody twice; one that nobody waits for is gone.

        Raises:
            DatabaseUnusable: the database cannot be written; nobody was told.
        """
        return await self._signals.deliver(signal)

    # Beginning a run

    async def _checked(self, assignment: Assignment) -> Assignment:
        """Return the assignment with its workflow in order, having refused what cannot be carried out."""
        tenant = assignment.principal.tenant
        for member in assignment.members:
            await self._registry.get(tenant, member)
        workflow = assignment.workflow
        if workflow is not None:
            members = assignment.members or None
            plan = await self._with_agents(tenant, lambda agents: check_plan(workflow, agents=agents, members=members))
            assignment = replace(assignment, workflow=plan.dump())
            workflow_inputs(plan, task_of(assignment_to_json(assignment)), "the workflow's inputs")
        elif assignment.agent_id:
            agent = await self._registry.get(tenant, assignment.agent_id)
            own = agent_workflow(agent)
            if own is not None:
                workflow_inputs(own, task_of(assignment_to_json(assignment)), f"the inputs of {agent.id}")
            if agent.endpoint.binding in (Binding.TEAM, Binding.WORKFLOW):
                assignment = self._admitted(assignment, agent)
        if not assignment.goal.parts and (said := text(assignment.arguments, "message")):
            goal = replace(assignment.goal, parts=(TextPart(text=said),))
            assignment = replace(assignment, goal=goal)
        return assignment

    async def _guarded(self, assignment: Assignment) -> Assignment:
        """Return an assignment within the limits of the tree that it is in, or begins.

        Raises:
            NotAllowed: its mark is none.
            DelegationLoop, BudgetExceeded: the tree's guards stop it.
        """
        guards, lineage = self._dispatcher.guards, assignment.lineage
        ticket = guards.ticket(assignment.mark, assignment.principal) if not lineage.branch else None
        budget = guards.budget(assignment.budget)
        if ticket is not None:
            budget = budget.least(await guards.enter(ticket, assignment.agent_id))
            lineage = lineage_of(ticket)
        return replace(assignment, budget=budget, lineage=lineage)

    def _admitted(self, assignment: Assignment, agent: Agent) -> Assignment:
        """Return an assignment of a team or workflow as the policy lets it be: where a person is asked, as one step.

        Raises:
            NotAllowed: the policy says no.
        """
        call = Call(
            capability=agent.card.capabilities[0].name if agent.card.capabilities else "",
            arguments=assignment.inputs or assignment.arguments,
            message=assignment.goal,
            principal=assignment.principal,
            idempotency_key=assignment.idempotency_key,
        )
        match self._dispatcher.decide(agent, call):
            case Allow():
                return assignment
            case Deny(why=why):
                self._dispatcher.record(agent, call, decision="deny", outcome="refused")
                raise NotAllowed(f"a run of {agent.id}", why)
            case Ask():
                step: dict[str, Json] = {"agent": agent.id}
                # Values go in by names of our own, so that nothing in them is read as a template.
                given = {f"input{number}": value for number, value in enumerate(call.arguments.values())}
                if given:
                    step["arguments"] = {
                        name: f"{{{{ inputs.input{number} }}}}" for number, name in enumerate(call.arguments)
                    }
                name = agent.id.replace("-", "_")
                steps: list[Json] = [{"id": name if name[0].isalpha() else f"agent_{name}", "call": step}]
                inputs: dict[str, Json] = {own: {} for own in given}
                plan = check_plan({"inputs": inputs, "steps": steps}, source=agent.id)
                return replace(assignment, workflow=plan.dump(), inputs=given, arguments={})

    def _id_of(self, assignment: Assignment) -> str:
        if not assignment.idempotency_key:
            return str(uuid4())
        return str(uuid5(NAMESPACE_URL, f"interhub:{assignment.principal.key}:{assignment.idempotency_key}"))

    async def _is_short(self, assignment: Assignment) -> bool:
        if self._short is None or not assignment.agent_id:
            return False
        return is_short(assignment, (await self._agents(assignment.principal.tenant)).get(assignment.agent_id))

    async def _create(self, run_id: str, assignment: Assignment, *, unrecorded: bool = False) -> RunRecord | None:
        """Write a run, and its first event with it; None when one of that id is there."""
        record = self._row_of(run_id, assignment, unrecorded=unrecorded)
        payload: dict[str, Json] = {
            "goal": record.goal,
            "agent": assignment.agent_id,
            "workflow": text(mapping(assignment.workflow), "name"),
            "context_id": record.context_id,
        }
        return replace(record, generation=1) if await self._write(record, payload) else None

    def _row_of(self, run_id: str, assignment: Assignment, *, unrecorded: bool = False) -> RunRecord:
        at = datetime.now(UTC)
        given = assignment.context_id or assignment.goal.context_id
        context_id = given or str(uuid4())
        shaped = assignment_to_json(replace(assignment, context_id=context_id))
        spec: dict[str, Json] = {**shaped, "root": run_id, "prefix": "", "trail": list(assignment.lineage.trail)}
        if assignment.budget.until is not None:
            spec["wall_s"] = max(0.001, round(assignment.budget.until - at.timestamp(), 1))  # as it is told to people
        if unrecorded:
            spec[UNRECORDED] = True
        if not given:
            spec["new_context"] = True
        spec["answer_within_s"] = self._answer_within_s
        said = text_of(assignment.goal.parts)
        return RunRecord(
            id=run_id,
            tenant=assignment.principal.tenant,
            subject=assignment.principal.subject,
            context_id=context_id,
            agent_id=assignment.agent_id,
            goal=said[:2000],
            spec=spec,
            state=RunState.SUBMITTED,
            outcome=None,
            created_at=at,
            updated_at=at,
            ended_at=None,
            generation=0,
        )

    async def _write(self, record: RunRecord, payload: JsonObject) -> bool:
        """Write a run and its first event; False when one of its id is there."""
        # The journal comes first: a run that is written but not started is started at the next start-up.
        began = self._journal.write(lambda connection: records.add_run(connection, record))
        at = record.created_at
        self._journal.post(Fact(run_id=record.id, kind=EventKind.RUN_SUBMITTED, at=at, payload=payload))
        return await began

    # After a crash

    async def mend(self) -> None:
        """Bring journal and engine together: one of them may know more when a crash came between their writes.

        At start-up, and whenever a replica was lost. It changes nothing of what other replicas are about.
        """
        unfinished = await anyio.to_thread.run_sync(self._unfinished)
        if not unfinished:
            return
        states = await self._engine.states([record.id for record in unfinished])
        for record in unfinished:
            state = states.get(record.id)
            if state is None:
                await self._engine.start(record.id, record.spec, tenant=record.tenant)
            elif state is EngineState.CANCELED:
                await self._recalls.of_run(record)
                payload: dict[str, Json] = {"why": "canceled"}
                await self._journal.append(Fact(run_id=record.id, kind=EventKind.RUN_CANCELED, payload=payload))
            elif state is not EngineState.ACTIVE:
                # The journal is behind: a crash of the machine can take what it wrote last, the engine's never.
                envelope = await self._engine.result(record.id)
                broken = failed_because("INTERNAL", "the hub failed; its log says why")
                await self._journal.append(final_fact(record.id, broken if envelope is None else envelope))
        active = [record.id for record in unfinished if states.get(record.id) is EngineState.ACTIVE]
        await self._approvals.deliver(active)
        await self._signals.redeliver(active)
        log.info("runs_taken_up", runs=len(active), unfinished=len(unfinished))

    def _unfinished(self) -> Sequence[RunRecord]:
        with reading(self._database) as connection:
            return records.unfinished_runs(connection)

    # Reading

    async def _agents(self, tenant: str) -> dict[str, Agent]:
        return {agent.id: agent for agent in await self._registry.list(tenant)}

    async def _with_agents(self, tenant: str, check: Callable[[Mapping[str, Agent]], T]) -> T:
        """Return what a check against the tenant's agents gives; it is made again where an agent has just been added.

        Another replica may have added it, and its notice be on the way: whoever named it was told that it is there.
        """
        known = await self._agents(tenant)
        try:
            return check(known)
        except PlanInvalid:
            there = {agent.id: agent for agent in await self._registry.all() if agent.tenant == tenant}
            if there.keys() == known.keys():
                raise
        return check(there)

    async def _record(self, run_id: str) -> RunRecord | None:
        def read() -> RunRecord | None:
            with reading(self._database) as connection:
                return records.find_run(connection, run_id)

        return await anyio.to_thread.run_sync(read)

    def _ended_now(self, run_id: str) -> RunRecord | None:
        """Return the row of a run that was begun here, and ended here a moment ago; None where it must be read."""
        final = self._journal.final(run_id)
        record = self._begun.pop(run_id, None) if final is not None else None
        if record is None or final is None:
            return None
        return replace(
            record,
            state=state_after(final),
            outcome=final.payload,
            updated_at=final.at,
            ended_at=final.at,
            generation=final.seq,
        )

    async def _check_owner(self, principal: Principal, run_id: str) -> None:
        if self._owners.get(run_id) != (principal.tenant, principal.subject):
            await self._owned(principal, run_id)

    async def _owned(self, principal: Principal, run_id: str) -> RunRecord:
        record = await self._record(run_id)
        if record is None or (record.tenant, record.subject) != (principal.tenant, principal.subject):
            raise RunNotFound(run_id)
        return record

    async def _story(self, run_id: str, generation: int) -> Story:
        story = self._stories.setdefault(run_id, Story())
        self._stories.move_to_end(run_id)
        while len(self._stories) > KEPT_STORIES:
            self._stories.popitem(last=False)
        while story.seq < generation:
            limit = min(generation - story.seq, 1000)
            story.feed(await self._journal.read(run_id, after=story.seq, limit=limit))
        return story

    def _details(self, record: RunRecord) -> tuple[Sequence[QuestionRecord], StepValue | None]:
        asked = self._approvals.of_run(record.id) if record.state.interrupted else []
        if record.state is not RunState.COMPLETED:
            return asked, None
        if name := _blob_of(record):
            return asked, StepValue.load(load_blob(self._database, name))
        return asked, StepValue.load(mapping(mapping((record.outcome or {}).get("result")).get("value")))


def _blob_of(record: RunRecord) -> str:
    """Return the name of a run's large result; empty where it is written in the run's row."""
    return text(mapping((record.outcome or {}).get("result")), "blob")
