"""One execution of one plan: which leaf begins when, what became of each, and what that means for the others."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import assert_never, cast
from uuid import NAMESPACE_URL, uuid5

import anyio.to_thread
import orjson
import sqlalchemy as sa

from interhub.adapters import DataPart, Part, RemoteRejected, Resume, TextPart
from interhub.adapters.content import message_from_json, message_to_json, parts_from_json
from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import TABLE

from . import records
from .blobs import load_blob, pack
from .delegation import Delegator
from .durable import Durable
from .envelope import (
    VERSION,
    StepValue,
    budget_from_json,
    budget_to_json,
    failed_because,
    mapping,
    named_artifacts,
    normalised,
    number,
    principal_from_json,
    principal_to_json,
    requests_from_json,
    resume_from_json,
    text,
)
from .facts import end_fact, routed_fact
from .journal import Fact, Journal, outlasting
from .leaf import Leaf, Phase, Shown, last_answer, shown_group, shown_leaf
from .model import CallStep, Graph, Node, OnError, Plan, PlanStep, compile_plan
from .order import Order
from .planner import Planned
from .run import EventKind, Question
from .template import TemplateFailed, render, render_all

ANSWER_WITHIN_S = 30 * 24 * 3600.0
"""How long a question waits for its answer."""
_NO_PLAN = Plan.model_construct(steps=())


class Execution:
    """One execution of one plan."""

    def __init__(
        self, durable: Durable, given: JsonObject, *, delegator: Delegator, journal: Journal, database: sa.Engine
    ) -> None:
        self._durable = durable
        self._given = given
        self._delegator = delegator
        self._journal = journal
        self._database = database
        self._root = text(given, "root")
        self._prefix = text(given, "prefix")
        self._goal = message_from_json(mapping(given.get("goal")))
        self._principal = principal_from_json(mapping(given.get("principal")))
        self._told: set[tuple[str, int]] = set()
        self._leaves: dict[str, Leaf] = {}

    def begin(self) -> None:
        """Tell that the run has begun."""
        if not self._prefix:
            self._tell(EventKind.RUN_STARTED)

    async def carry_out(self, planned: Planned) -> JsonObject:
        """Carry out the plan and return its envelope."""
        graph = compile_plan(planned.plan)
        self._tell_plan(planned, graph)
        self._leaves = {node.path: Leaf(node) for node in graph.nodes}
        fatal: Leaf | None = None
        while True:
            if fatal is None:
                fatal = await self._begin_ready(planned, graph)
            running = [leaf for leaf in self._leaves.values() if leaf.branch is not None]
            if not running:
                break
            done = await self._durable.wait([leaf.branch for leaf in running if leaf.branch is not None])
            ended = [leaf for leaf in running if leaf.branch in done]
            fatal = await self._take(ended) or fatal
        if fatal is not None:
            error = dict(mapping(fatal.envelope.get("error")))
            error.setdefault("step", self._path(fatal.node))
            # One agent that declines has rejected the run; one of several has failed it.
            if len(self._leaves) == 1 and error.get("reason") == TABLE[RemoteRejected].reason:
                error["rejected"] = True
            else:
                error.pop("rejected", None)
            return normalised({"ok": False, "error": error})
        return await self._outcome(planned, graph)

    # Beginning leaves

    async def _begin_ready(self, planned: Planned, graph: Graph) -> Leaf | None:
        """Begin every leaf whose time has come. Returns the leaf that has failed the plan, if one has."""
        again = True
        while again:
            again = False
            for leaf in self._leaves.values():
                ready = all(self._leaves[path].phase.over for path in leaf.node.after)
                if leaf.phase is not Phase.WAITING or not ready:
                    continue
                await self._begin(leaf, planned, graph)
                if leaf.failed:  # its template failed: what comes after it may be ready too
                    again = True
                    if (fatal := await self._fail([leaf])) is not None:
                        return fatal
        return None

    async def _begin(self, leaf: Leaf, planned: Planned, graph: Graph) -> None:
        step = leaf.node.step
        values = await self._values(planned, graph)
        self._tell(EventKind.STEP_STARTED, self._path(leaf.node), 1)
        try:
            match step:
                case CallStep():
                    leaf.order = self._order(step, leaf.node, planned, values)
                case PlanStep():
                    inputs = mapping(render_all(step.plan.inputs, values))
                    await self._begin_child(leaf, planned, workflow=step.plan.workflow.dump(), inputs=inputs)
                    return
                case _:
                    assert_never(step)
        except TemplateFailed as error:
            self._end(leaf, failed_because("PLAN_INVALID", f"a template of this step failed: {error}", attempts=1))
            return
        await self._begin_call(leaf, leaf.order)

    async def _begin_call(self, leaf: Leaf, order: Order) -> None:
        told = (self._path(leaf.node), order.first_attempt)
        recovered = self._durable.recovered

        async def body() -> Json:
            self._told.add(told)
            return await self._delegator.carry_out(order, recovered=recovered)

        leaf.order = order
        leaf.phase = Phase.CALLING
        leaf.branch = await self._durable.begin_step(f"{leaf.node.path}#{leaf.round}", body)

    async def _begin_child(
        self,
        leaf: Leaf,
        planned: Planned,
        *,
        workflow: JsonObject | None = None,
        inputs: JsonObject | None = None,
        agent: str = "",
        arguments: JsonObject | None = None,
        parts: tuple[Part, ...] = (),
    ) -> None:
        budget = budget_from_json(mapping(self._given.get("budget")))
        goal = replace(self._goal, parts=parts) if parts else self._goal
        given: dict[str, Json] = {
            "version": VERSION,
            "root": self._root,
            "prefix": self._path(leaf.node),
            "principal": principal_to_json(self._principal),
            "goal": message_to_json(goal),
            "agent": agent,
            "capability": "",
            "arguments": arguments or {},
            "workflow": workflow,
            "inputs": inputs or {},
            "members": [] if agent else list(planned.members),
            "trail": list(planned.trail),
            "context": self._given.get("context", ""),
            "budget": budget_to_json(replace(budget, depth=budget.depth - 1) if agent else budget),
        }
        leaf.phase = Phase.IN_CHILD
        leaf.child = f"{self._durable.id}.{leaf.node.path}"
        leaf.branch = await self._durable.begin_child(leaf.child, given)

    def _order(self, step: CallStep, node: Node, planned: Planned, values: Mapping[str, object]) -> Order:
        spec = step.call
        path = self._path(node)
        bare = not spec.message and spec.arguments is None and spec.data is None
        parts: tuple[Part, ...] = self._goal.parts
        arguments: JsonObject | None = None
        if bare:
            given = mapping(self._given.get("arguments"))
            # A capability that was named with no words is called with the arguments, though there be none.
            outright = bool(given) or (text(self._given, "capability") != "" and not self._goal.parts)
            arguments = given if outright and not self._prefix else None
        else:
            said = render(spec.message, values) if spec.message else ""
            data = render_all(cast("Json", spec.data), values) if spec.data is not None else None
            parts = (
                *((TextPart(text=said if isinstance(said, str) else orjson.dumps(said).decode()),) if said else ()),
                *((DataPart(data=data),) if data is not None else ()),
            )
            if spec.arguments is not None:
                arguments = mapping(render_all(cast("Json", spec.arguments), values))
        return Order(
            run_id=self._root,
            step=path,
            key=f"{self._root}/{path}",
            principal=self._principal,
            agent_id=spec.agent,
            need=cast("str", render(spec.need, values)) if spec.need else "",
            capability=spec.capability,
            parts=parts,
            arguments=arguments,
            message=self._goal if bare else None,
            members=planned.members,
            trail=planned.trail,
            budget=budget_from_json(mapping(self._given.get("budget"))),
            context_id=text(self._given, "context"),
            timeout_s=spec.timeout_s,
            retry=spec.retry,
            resume=self._resume() if bare and not self._prefix else None,
            why=planned.why if bare else "",
        )

    def _resume(self) -> Resume | None:
        """Return the answer to what the run's capability asked before there was a run."""
        given = self._given.get("resume")
        return resume_from_json(mapping(given)) if given is not None else None

    # Taking what branches gave

    async def _take(self, ended: list[Leaf]) -> Leaf | None:
        """Take the results of branches, in the order of the plan. Returns the leaf that has failed the plan."""
        more: list[Leaf] = []
        failures: list[Leaf] = []
        for leaf in ended:
            assert leaf.branch is not None, "only leaves with a branch end"
            result, leaf.branch = leaf.branch.result(), None
            match leaf.phase:
                case Phase.ASKING:
                    self._take_answer(leaf, result)
                case Phase.IN_CHILD:
                    self._take_child(leaf, mapping(result))
                case _:
                    self._take_call(leaf, mapping(result))
            if leaf.failed:
                failures.append(leaf)
            elif leaf.phase is not Phase.ENDED:
                more.append(leaf)
        fatal = await self._fail(failures)
        for leaf in more:
            if fatal is None and leaf.phase is not Phase.SKIPPED:
                await self._go_on(leaf)
        return fatal

    def _take_call(self, leaf: Leaf, envelope: JsonObject) -> None:
        path = self._path(leaf.node)
        told = leaf.order is not None and (path, leaf.order.first_attempt) in self._told
        if not told and (routed := routed_fact(self._root, path, envelope)) is not None:
            self._journal.post(routed)
        if "ask" in envelope or "child" in envelope:
            leaf.asked = envelope
            leaf.phase = Phase.ASKING if "ask" in envelope else Phase.IN_CHILD
            return
        self._end(leaf, envelope, told=told)

    def _take_child(self, leaf: Leaf, envelope: JsonObject) -> None:
        agent = text(leaf.asked, "agent")
        attempts = int(number(leaf.asked, "attempts")) or 1
        self._end(leaf, {**envelope, "agent": agent, "attempts": attempts})

    def _take_answer(self, leaf: Leaf, result: Json) -> None:
        attempts = int(number(leaf.asked, "attempts")) or 1
        if result is None:
            self._close_question(leaf, "nobody answered in time", state="expired")
            self._end(leaf, failed_because("QUESTION_NOT_FOUND", "nobody answered in time", attempts=attempts))
            return
        answer = mapping(result)
        asked = mapping(leaf.asked.get("ask"))
        self._note_answer(leaf, answer, attempts)
        accepted = answer.get("accepted") is True
        if asked.get("approval") is True and not accepted:
            message = f"{text(answer, 'by') or 'somebody'} declined it"
            self._end(leaf, failed_because("PERMISSION_DENIED", message, attempts=attempts))
            return
        assert leaf.order is not None, "only calls ask"
        approval = asked.get("approval") is True
        resume = Resume(
            answer=parts_from_json(answer.get("parts")),
            state=asked.get("state"),
            accepted=accepted,
            message_id=text(answer, "message_id"),
        )
        leaf.round += 1
        leaf.order = replace(
            leaf.order,
            key=f"{self._root}/{self._path(leaf.node)}#{leaf.round}",
            agent_id=text(leaf.asked, "agent"),
            capability=text(leaf.asked, "capability") or leaf.order.capability,
            first_attempt=attempts + 1,
            resume=leaf.order.resume if approval else resume,
            approved=text(asked, "digest") if approval else leaf.order.approved,
        )
        leaf.phase = Phase.CALLING

    async def _go_on(self, leaf: Leaf) -> None:
        """Begin a leaf's next branch."""
        match leaf.phase:
            case Phase.ASKING:
                await self._ask(leaf)
            case Phase.IN_CHILD:
                child = mapping(leaf.asked.get("child"))
                assert leaf.order is not None, "only calls become child runs"
                await self._begin_child(
                    leaf,
                    Planned(plan=_NO_PLAN, planner="", members=leaf.order.members, trail=leaf.order.trail),
                    agent=text(child, "agent"),
                    arguments=mapping(child.get("arguments")),
                    parts=parts_from_json(child.get("parts")),
                )
            case _:
                assert leaf.order is not None, "only calls are made again"
                self._tell(EventKind.STEP_STARTED, self._path(leaf.node), leaf.order.first_attempt)
                await self._begin_call(leaf, leaf.order)

    async def _ask(self, leaf: Leaf) -> None:
        asked = dict(mapping(leaf.asked.get("ask")))
        attempts = int(number(leaf.asked, "attempts")) or 1
        question_id = self._question_id(leaf)
        now = datetime.now(UTC)
        expires = now + timedelta(seconds=ANSWER_WITHIN_S)
        schema = asked.get("schema")
        question = Question(
            id=question_id,
            run_id=self._root,
            step=self._path(leaf.node),
            agent_id=text(leaf.asked, "agent"),
            parts=parts_from_json(asked.get("parts")),
            schema=mapping(schema) if schema is not None else None,
            auth=asked.get("auth") is True,
            requests=requests_from_json(asked.get("requests")),
            asked_at=now,
            expires_at=expires,
        )
        shown: dict[str, Json] = {name: asked.get(name) for name in ("parts", "schema", "auth", "approval")}
        if question.requests:
            shown["requests"] = asked.get("requests")
        row = {**shown, "agent": question.agent_id, "workflow": self._durable.id}
        digest = text(asked, "digest")
        await self._journal.write(
            lambda connection: records.ask(connection, question, row, attempt=attempts, digest=digest)
        )
        self._tell(
            EventKind.QUESTION_ASKED,
            question.step,
            attempts,
            **{**shown, "question": question_id, "agent": question.agent_id, "expires_at": expires.isoformat()},
        )
        leaf.branch = await self._durable.begin_receive(question_id, ANSWER_WITHIN_S)

    def _note_answer(self, leaf: Leaf, answer: JsonObject, attempts: int) -> None:
        """Tell of the answer that the engine has. It is known already, unless a crash of the machine took it."""
        question_id, by = self._question_id(leaf), text(answer, "by")
        self._journal.post_change(lambda connection: records.answer_question(connection, question_id, answer, by))
        self._tell(
            EventKind.QUESTION_ANSWERED,
            self._path(leaf.node),
            attempts,
            question=question_id,
            by=by,
            accepted=answer.get("accepted"),
        )

    def _question_id(self, leaf: Leaf) -> str:
        return str(uuid5(NAMESPACE_URL, f"interhub:{self._root}/{self._path(leaf.node)}#{leaf.round}"))

    def _close_question(self, leaf: Leaf, why: str, *, state: str = "closed") -> None:
        question_id = self._question_id(leaf)
        self._journal.post_change(lambda connection: records.close_question(connection, question_id, state=state))
        attempts = int(number(leaf.asked, "attempts")) or 1
        self._tell(EventKind.QUESTION_CLOSED, self._path(leaf.node), attempts, question=question_id, why=why)

    # Ending leaves

    def _end(self, leaf: Leaf, envelope: JsonObject, *, told: bool = False) -> None:
        leaf.phase = Phase.ENDED
        leaf.envelope = envelope
        if not told:
            self._journal.post(end_fact(self._root, self._path(leaf.node), envelope))

    async def _fail(self, failures: list[Leaf]) -> Leaf | None:
        """Let failed leaves have their consequences. Returns the leaf that fails the plan, if one does."""
        for leaf in failures:
            if leaf.node.step.on_error is OnError.CONTINUE or not leaf.failed:
                continue
            scopes = leaf.node.scopes
            scope = scopes[-1] if scopes else ""
            victims = [
                one for one in self._leaves.values() if not one.phase.over and (not scope or scope in one.node.scopes)
            ]
            for victim in victims:
                await self._skip(victim, f"step {leaf.node.path} failed")
            if not scope:
                return leaf
        return None

    async def _skip(self, leaf: Leaf, why: str) -> None:
        phase, branch = leaf.phase, leaf.branch
        leaf.phase, leaf.branch = Phase.SKIPPED, None
        leaf.envelope = failed_because("CANCELED", f"not done, because {why}")
        if phase is Phase.IN_CHILD and branch is not None:
            await self._durable.cancel_child(leaf.child)
        if branch is not None:
            await branch.drop()
        if phase is Phase.ASKING and branch is not None:
            self._close_question(leaf, why)
        self._tell(EventKind.STEP_CANCELED, self._path(leaf.node), max(1, leaf.round), why=why)

    # Values

    async def _values(self, planned: Planned, graph: Graph) -> dict[str, object]:
        """Return what templates see."""
        for leaf in self._leaves.values():
            if leaf.phase is Phase.ENDED and leaf.envelope.get("ok") is True and leaf.value == StepValue():
                leaf.value = await self._unpack(leaf.envelope)
        steps: dict[str, object] = {}
        for name, paths in graph.members.items():
            leaves = [self._leaves[path] for path in paths]
            if all(leaf.phase.over for leaf in leaves):
                own = len(leaves) == 1 and leaves[0].node.step.id == name
                steps[name] = shown_leaf(leaves[0]) if own else shown_group(leaves)
        goal = StepValue(parts=self._goal.parts)
        return {"inputs": planned.inputs, "goal": Shown.of(goal), "steps": steps}

    async def _unpack(self, envelope: JsonObject) -> StepValue:
        name = text(envelope, "blob")
        if not name:
            return StepValue.load(mapping(envelope.get("value")))
        return StepValue.load(await outlasting(lambda: anyio.to_thread.run_sync(load_blob, self._database, name)))

    async def _outcome(self, planned: Planned, graph: Graph) -> JsonObject:
        values = await self._values(planned, graph)
        if planned.plan.output is not None:
            try:
                answer = StepValue.of_json(render_all(cast("Json", planned.plan.output), values))
            except TemplateFailed as error:
                return failed_because("PLAN_INVALID", f"the template of the output failed: {error}")
        else:
            answer = last_answer(list(self._leaves.values()))
        made = [
            artifact
            for leaf in self._leaves.values()
            for artifact in (
                leaf.value.artifacts if leaf.child else named_artifacts(self._path(leaf.node), leaf.value.artifacts)
            )
        ]
        value = replace(answer, artifacts=tuple(made))
        return normalised(await pack(self._journal, value))

    # Telling

    def _path(self, node: Node) -> str:
        return f"{self._prefix}.{node.path}" if self._prefix else node.path

    def _tell(self, kind: EventKind, step: str = "", attempt: int = 0, **payload: Json) -> None:
        self._journal.post(Fact(run_id=self._root, kind=kind, step=step, attempt=attempt, payload=payload))

    def _tell_plan(self, planned: Planned, graph: Graph) -> None:
        steps: list[Json] = []
        for node in graph.nodes:
            call = node.step.call if isinstance(node.step, CallStep) else None
            steps.append(
                {
                    "path": self._path(node),
                    "title": node.step.title,
                    "agent": call.agent if call is not None else "",
                    "need": call.need if call is not None else "",
                    "capability": call.capability if call is not None else "",
                    "after": [f"{self._prefix}.{path}" if self._prefix else path for path in node.after],
                }
            )
        name = planned.plan.name
        payload: dict[str, Json] = {"planner": planned.planner, "why": planned.why, "name": name, "steps": steps}
        self._tell(EventKind.RUN_PLANNED, self._prefix, 0, **payload)
