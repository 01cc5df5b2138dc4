"""One execution of one plan: which leaf begins when, what became of each, and what that means for the others.

Frame      steps that are carried out together; a plan is one, and its maps, loops and choices open more
Leaf       one step of a frame, and the one recorded call at a time that it waits for
Execution  goes through all of them, always in the same order
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import anyio.to_thread
import sqlalchemy as sa

from interhub.adapters import Artifact, Part, RemoteRejected, Resume
from interhub.adapters.content import message_to_json, parts_from_json
from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import TABLE, BudgetExceeded

from .asking import Asking, answered, attempts_of, question_of
from .blobs import load_blob, pack
from .blocks import Body, Closed, Next, block_of
from .delegation import Delegator
from .durable import Branch, Durable
from .envelope import (
    VERSION,
    StepValue,
    budget_from_json,
    budget_to_json,
    failed,
    failed_because,
    mapping,
    named_artifacts,
    normalised,
    principal_to_json,
    text,
)
from .facts import end_fact, routed_fact
from .frame import Frame, Leaf, Phase, Rescue, undoable_within
from .journal import Journal, outlasting
from .ledger import Ledger, spent_of
from .memory import Memory
from .model import (
    MAX_LEAVES,
    AskStep,
    CallStep,
    Fallback,
    OnError,
    Plan,
    PlanStep,
    TeamStep,
    WaitStep,
)
from .order import Order
from .orders import call_of, order_of, parts_of
from .outputs import fitted
from .planner import Planned
from .run import EventKind
from .scene import Scene
from .shown import Shown
from .template import TemplateFailed, render_all
from .waits import Waiting, received, wanted

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
        self._scene = Scene(durable, given, journal)
        self._asking = Asking(self._scene)
        self._waiting = Waiting(self._scene)
        self._memory = Memory(self._scene, mapping(given.get("memory")))
        self._goal = Shown.of(StepValue(parts=self._scene.goal.parts))
        self._told: set[tuple[str, int]] = set()
        self._planned = Planned(plan=_NO_PLAN, planner="")
        self._clock: Branch | None = None
        self._ended = 0
        self._leaves = 0

    def begin(self) -> None:
        """Tell that the run has begun."""
        if not self._scene.prefix:
            self._scene.tell(EventKind.RUN_STARTED)

    async def carry_out(self, planned: Planned) -> JsonObject:
        """Carry out the plan and return its envelope."""
        self._planned = planned
        plan = planned.plan
        ledger = Ledger(budget_from_json(mapping(self._given.get("budget")))).within(plan.budget)
        root = Frame(Body(steps=plan.steps, output=cast("Json", plan.output)), prefix="", ledger=ledger)
        self._leaves = len(root.leaves)
        self._tell_plan(planned, root)
        if plan.budget is not None and plan.budget.wall_s is not None:
            self._clock = await self._durable.begin_receive("clock", plan.budget.wall_s)
        await self._advance(root)
        while not root.over:
            waited = self._waited_for(root)
            assert waited, "a frame that is not over waits for something"
            done = await self._durable.wait([branch for branch, _ in waited])
            await self._take(root, [(branch, leaf) for branch, leaf in waited if branch in done])
            await self._advance(root)
        if self._clock is not None:
            await self._clock.drop()
        envelope = await self._outcome(root)
        return normalised({**envelope, "spent": ledger.spent(), **self._memory.report()})

    def _waited_for(self, root: Frame) -> list[tuple[Branch, Leaf | None]]:
        """Return what is under way, in the order of the plan, and whose it is."""
        leaves = list(root.all_leaves())
        found: list[tuple[Branch, Leaf | None]] = [(leaf.branch, leaf) for leaf in leaves if leaf.branch is not None]
        found += [(leaf.timer, leaf) for leaf in leaves if leaf.timer is not None]
        if self._clock is not None:
            found.append((self._clock, None))
        return found

    # Going on

    async def _advance(self, root: Frame) -> None:
        """Begin everything whose time has come, and close what is over, until nothing more follows."""
        again = True
        while again and not root.over:
            again = False
            for frame in list(_open(root)):
                if not frame.over:
                    again |= await self._advance_frame(frame)

    async def _advance_frame(self, frame: Frame) -> bool:
        """Let one frame go on; True when something is over, or opened, so that others may go on too."""
        if frame.rescue is not None:
            return await self._advance_rescue(frame, frame.rescue)
        news = False
        for leaf in list(frame.leaves.values()):
            if not frame.ready(leaf):
                continue
            await self._begin(leaf)
            news |= leaf.phase.over or leaf.phase is Phase.INSIDE
            if leaf.failed:
                await self._fail([leaf])
                if frame.over or frame.rescue is not None:
                    return True
        if all(leaf.phase.over for leaf in frame.leaves.values()):
            await self._complete(frame)
            return True
        return news

    async def _complete(self, frame: Frame) -> None:
        """Close a frame whose leaves are all over, having made its answer."""
        if frame.body.output is not None:
            try:
                frame.value = StepValue.of_json(render_all(frame.body.output, self._values(frame)))
            except TemplateFailed as error:
                message = f"the template of the output failed: {error}"
                await self._fail_frame(frame, {"reason": "PLAN_INVALID", "message": message})
                return
        else:
            frame.value = frame.answer()
        if frame.outer is None and self._planned.plan.output_schema is not None:
            value, problem = fitted(frame.value, cast("JsonObject", self._planned.plan.output_schema))
            if problem:
                await self._fail_frame(frame, {"reason": "OUTPUT_INVALID", "message": problem})
                return
            frame.value = value
        await self._close(frame)

    async def _close(self, frame: Frame) -> None:
        """Take note that a frame is over, and let the step whose steps these are go on."""
        frame.over = True
        owner = frame.owner
        if owner is None or owner.phase is not Phase.INSIDE or owner.block is None:
            return
        closed = Closed(key=frame.body.key, value=frame.value, error=frame.error, values=self._values(frame))
        if frame.error is not None and owner.block.contains(closed):
            self._undo(owner.frame, list(frame.undoable()), frame.error)
        try:
            await self._follow(owner, owner.block.closed(closed))
        except TemplateFailed as error:
            await self._end_inside(owner, _template_failed(error))
        if owner.failed:
            await self._fail([owner])

    async def _follow(self, leaf: Leaf, following: Next) -> None:
        """Do what a block says comes next."""
        if following.why:
            self._decided(leaf, following.why)
        if following.error is not None:
            await self._end_inside(leaf, {"ok": False, "error": following.error, "attempts": 1})
        elif following.value is not None:
            leaf.errors = list(following.errors) if following.errors else None
            await self._end_inside(leaf, await pack(self._journal, following.value, self._scene.root), following.value)
        elif following.pause_s > 0:
            leaf.asked = {"bodies": True}
            leaf.pending = following.bodies
            leaf.branch = await self._durable.begin_receive(f"pause:{leaf.path}:{len(leaf.frames)}", following.pause_s)
        else:
            await self._open_bodies(leaf, following.bodies)

    async def _open_bodies(self, leaf: Leaf, bodies: Sequence[Body]) -> None:
        for body in bodies:
            prefix = f"{leaf.path}.{body.key}" if body.key else leaf.path
            frame = Frame(body, prefix=prefix, ledger=leaf.ledger, outer=leaf.frame, owner=leaf)
            self._leaves += len(frame.leaves)
            if self._leaves > MAX_LEAVES:
                message = f"the plan comes to over {MAX_LEAVES} steps"
                await self._end_inside(leaf, failed_because("LIMIT_REACHED", message, attempts=1))
                return
            leaf.frames.append(frame)

    async def _end_inside(self, leaf: Leaf, envelope: JsonObject, value: StepValue | None = None) -> None:
        """End a step that has steps within it; those of them that are under way are stopped."""
        for frame in leaf.frames:
            if not frame.over:
                await self._stop(frame, f"step {leaf.path} has ended")
        await self._end(leaf, {"attempts": 1, **envelope}, value=value)

    # Beginning leaves

    async def _begin(self, leaf: Leaf) -> None:
        step = leaf.node.step
        values = self._values(leaf.frame)
        self._scene.begin_leaf(leaf, 1)
        try:
            spec = call_of(step)
            if spec is not None:
                await self._begin_call(leaf, order_of(self._scene, leaf, spec, self._planned, values))
            elif isinstance(step, PlanStep) and step.plan.workflow is not None:
                inputs = mapping(render_all(cast("Json", step.plan.inputs), values))
                await self._begin_child(
                    leaf, self._planned, workflow=step.plan.workflow.dump(), inputs=inputs, remembers=True
                )
            elif isinstance(step, TeamStep):
                await self._begin_team(leaf, step, values)
            elif isinstance(step, AskStep):
                asker = (self._planned.trail or (self._planned.plan.name or "workflow",))[-1]
                leaf.asked = question_of(step, asker, values)
                leaf.phase = Phase.ASKING
                leaf.branch = await self._asking.ask(leaf)
            elif isinstance(step, WaitStep):
                what = wanted(step, values)
                leaf.phase = Phase.RECEIVING
                leaf.branch = await self._waiting.wait(leaf, what)
            else:
                leaf.block = block_of(step)
                assert leaf.block is not None, "only maps, loops and choices are left"
                following = leaf.block.begin(values)
                leaf.phase = Phase.INSIDE
                await self._follow(leaf, following)
        except TemplateFailed as error:
            await self._end(leaf, _template_failed(error))
        if not leaf.phase.over and not isinstance(step, AskStep | WaitStep):
            within_s = _shortest(step.timeout_s, step.budget.wall_s if step.budget is not None else None)
            if within_s is not None:
                leaf.timer = await self._durable.begin_receive(f"timer:{leaf.path}", within_s)

    async def _begin_call(self, leaf: Leaf, order: Order) -> None:
        exceeded = leaf.ledger.exceeded()
        if exceeded is not None:
            await self._end(leaf, failed(BudgetExceeded(*exceeded), attempts=order.first_attempt))
            return
        if leaf.counted <= leaf.fallback:
            leaf.counted += 1
            leaf.ledger.take_call()
        told = (self._scene.path(leaf), order.first_attempt)
        recovered = self._durable.recovered

        async def body() -> Json:
            self._told.add(told)
            return await self._delegator.carry_out(order, recovered=recovered)

        leaf.order = order
        leaf.phase = Phase.CALLING
        leaf.branch = await self._durable.begin_step(f"{leaf.path}#{leaf.round}", body)

    async def _begin_team(self, leaf: Leaf, step: TeamStep, values: Mapping[str, object]) -> None:
        spec = step.team
        workflow = spec.workflow
        planned = replace(self._planned, members=spec.members)
        await self._begin_child(
            leaf,
            planned,
            workflow=workflow.dump() if workflow is not None else None,
            inputs=mapping(render_all(cast("Json", spec.inputs), values)) if workflow is not None else None,
            parts=parts_of(spec.message, cast("Json", spec.data), values),
            deeper=True,
        )

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
        deeper: bool = False,
        remembers: bool = False,
    ) -> None:
        budget = leaf.ledger.left()
        if deeper and budget.depth < 1:
            await self._end(leaf, failed(BudgetExceeded("levels of delegation", 0), attempts=1))
            return
        goal = replace(self._scene.goal, parts=parts) if parts else self._scene.goal
        given: dict[str, Json] = {
            "version": VERSION,
            "root": self._scene.root,
            "prefix": self._scene.path(leaf),
            "principal": principal_to_json(self._scene.principal),
            "goal": message_to_json(goal),
            "agent": agent,
            "capability": "",
            "arguments": arguments or {},
            "workflow": workflow,
            "inputs": inputs or {},
            "members": [] if agent else list(planned.members),
            "trail": list(planned.trail),
            "context": self._given.get("context", ""),
            "budget": budget_to_json(replace(budget, depth=budget.depth - 1) if agent or deeper else budget),
            **(self._memory.lend() if remembers else {}),
        }
        leaf.phase = Phase.IN_CHILD
        leaf.child = f"{self._durable.id}.{leaf.path}"
        leaf.branch = await self._durable.begin_child(leaf.child, given)

    # Taking what branches gave

    async def _take(self, root: Frame, ended: Sequence[tuple[Branch, Leaf | None]]) -> None:
        """Take the results of branches, in the order of the plan; then have failures their consequences."""
        more: list[Leaf] = []
        failures: list[Leaf] = []
        for branch, leaf in ended:
            if leaf is None:
                self._clock = None
                wall_s = self._planned.plan.budget.wall_s if self._planned.plan.budget is not None else None
                await self._fail_frame(root, mapping(failed(BudgetExceeded("seconds", wall_s or 0))["error"]))
                return
            if leaf.phase.over or branch not in (leaf.branch, leaf.timer):
                continue  # it ended by another branch of the same turn
            if branch is leaf.timer:
                await self._time_out(leaf)
            else:
                result, leaf.branch = branch.result(), None
                await self._take_result(leaf, result)
            if leaf.failed:
                failures.append(leaf)
            elif leaf.phase is not Phase.ENDED:
                more.append(leaf)
        await self._fail(failures)
        for leaf in more:
            if not leaf.phase.over and leaf.branch is None:
                await self._go_on(leaf)
                if leaf.failed:
                    await self._fail([leaf])

    async def _take_result(self, leaf: Leaf, result: Json) -> None:
        step = leaf.node.step
        match leaf.phase:
            case Phase.ASKING:
                await self._take_answer(leaf, result)
            case Phase.IN_CHILD:
                await self._take_child(leaf, mapping(result))
            case Phase.RECEIVING:
                assert isinstance(step, WaitStep), "only waits receive"
                self._waiting.close(leaf)
                await self._end(leaf, received(step, result))
            case Phase.INSIDE:
                pass  # the pause between two turns is over
            case _:
                await self._take_call(leaf, mapping(result))

    async def _take_call(self, leaf: Leaf, envelope: JsonObject) -> None:
        path = self._scene.path(leaf)
        told = leaf.order is not None and (path, leaf.order.first_attempt) in self._told
        if not told and (routed := routed_fact(self._scene.root, path, envelope)) is not None:
            self._journal.post(routed)
        if "ask" in envelope or "child" in envelope:
            leaf.asked = envelope
            leaf.phase = Phase.ASKING if "ask" in envelope else Phase.IN_CHILD
            return
        await self._end(leaf, envelope, told=told)

    async def _take_child(self, leaf: Leaf, envelope: JsonObject) -> None:
        leaf.ledger.take_spent(spent_of(envelope))
        if isinstance(leaf.node.step, PlanStep):
            self._memory.take_back(envelope)
        agent, attempts = text(leaf.asked, "agent"), attempts_of(leaf.asked)
        await self._end(leaf, {**envelope, "agent": agent, "attempts": attempts})

    async def _take_answer(self, leaf: Leaf, result: Json) -> None:
        attempts = attempts_of(leaf.asked)
        if result is None:
            self._asking.close(leaf, "nobody answered in time", state="expired")
            await self._end(leaf, failed_because("QUESTION_NOT_FOUND", "nobody answered in time", attempts=attempts))
            return
        answer = mapping(result)
        asked = mapping(leaf.asked.get("ask"))
        self._asking.note(leaf, answer)
        step = leaf.node.step
        if isinstance(step, AskStep):
            await self._end(leaf, answered(step, answer))
            return
        accepted = answer.get("accepted") is True
        approval = asked.get("approval") is True
        if approval and not accepted:
            message = f"{text(answer, 'by') or 'somebody'} declined it"
            await self._end(leaf, failed_because("PERMISSION_DENIED", message, attempts=attempts))
            return
        assert leaf.order is not None, "only calls ask"
        resume = Resume(
            answer=parts_from_json(answer.get("parts")),
            state=asked.get("state"),
            accepted=accepted,
            message_id=text(answer, "message_id"),
        )
        leaf.round += 1
        leaf.order = replace(
            leaf.order,
            key=f"{self._scene.root}/{self._scene.path(leaf)}#{leaf.round}",
            agent_id=text(leaf.asked, "agent"),
            capability=text(leaf.asked, "capability") or leaf.order.capability,
            first_attempt=attempts + 1,
            resume=leaf.order.resume if approval else resume,
            approved=text(asked, "digest") if approval else leaf.order.approved,
        )
        leaf.phase = Phase.CALLING

    async def _time_out(self, leaf: Leaf) -> None:
        """End a leaf that has lasted too long."""
        step = leaf.node.step
        leaf.timer = None
        within_s = _shortest(step.timeout_s, step.budget.wall_s if step.budget is not None else None)
        await self._halt(leaf, "it lasted too long")
        attempts = attempts_of(leaf.asked) if leaf.asked else leaf.order.first_attempt if leaf.order else 1
        message = f"it was not done within {within_s:g} s"
        await self._end(leaf, failed_because("STEP_TIMEOUT", message, attempts=attempts), final=True)

    async def _go_on(self, leaf: Leaf) -> None:
        """Begin a leaf's next branch."""
        match leaf.phase:
            case Phase.ASKING:
                leaf.branch = await self._asking.ask(leaf)
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
            case Phase.INSIDE:
                bodies, leaf.pending = leaf.pending, ()
                await self._open_bodies(leaf, bodies)
            case _:
                assert leaf.order is not None, "only calls are made again"
                self._scene.begin_leaf(leaf, leaf.order.first_attempt)
                await self._begin_call(leaf, leaf.order)

    # Ending leaves

    async def _end(
        self,
        leaf: Leaf,
        envelope: JsonObject,
        *,
        told: bool = False,
        final: bool = False,
        value: StepValue | None = None,
    ) -> None:
        """End a leaf; where it has failed and another agent may do it, let that one do it instead."""
        step = leaf.node.step
        if envelope.get("ok") is True:
            leaf.value = value if value is not None else await self._unpack(envelope)
            leaf.ledger.take_usage(leaf.value.usage)
            problem = self._finish_well(leaf)
            if problem is not None:
                envelope, told = {**problem, "attempts": attempts_of(envelope)}, False
                leaf.value = StepValue()
        if not told:
            self._journal.post(end_fact(self._scene.root, self._scene.path(leaf), envelope))
        if envelope.get("ok") is not True and not final and isinstance(step, CallStep):
            left = step.call.fallback[leaf.fallback :]
            if left and leaf.order is not None and mapping(envelope.get("error")).get("reason") not in _NOT_FOR_OTHERS:
                self._fall_back(leaf, left[0], envelope)
                return
        if leaf.timer is not None:
            timer, leaf.timer = leaf.timer, None
            await timer.drop()
        leaf.phase = Phase.ENDED
        leaf.envelope = envelope
        if leaf.ok:
            self._ended += 1
            leaf.ended = self._ended
        leaf.frame.note_over(leaf)

    def _finish_well(self, leaf: Leaf) -> dict[str, Json] | None:
        """Check what a leaf gave, and remember what is to be remembered. Returns the failure, if there is one."""
        step = leaf.node.step
        if step.output_schema is not None:
            leaf.value, problem = fitted(leaf.value, cast("JsonObject", step.output_schema))
            if problem:
                return failed_because("OUTPUT_INVALID", problem)
        if step.remember:
            values = {**self._values(leaf.frame), "result": Shown.of(leaf.value)}
            try:
                self._memory.write(self._scene.path(leaf), cast("JsonObject", step.remember), values)
            except TemplateFailed as error:
                return _template_failed(error)
        return None

    def _fall_back(self, leaf: Leaf, fallback: Fallback, envelope: JsonObject) -> None:
        """Turn to the next agent."""
        assert leaf.order is not None, "only calls have others to turn to"
        message = text(mapping(envelope.get("error")), "message")
        attempts = attempts_of(envelope)
        leaf.fallback += 1
        leaf.round += 1
        leaf.child, leaf.asked = "", {}
        leaf.order = replace(
            leaf.order,
            key=f"{self._scene.root}/{self._scene.path(leaf)}#{leaf.round}",
            agent_id=fallback.agent,
            need="",
            capability=fallback.capability,
            first_attempt=attempts + 1,
            resume=None,
            approved="",
            why=f"in the place of {text(envelope, 'agent') or 'the one before'}, which failed: {message}"[:500],
        )
        leaf.phase = Phase.CALLING

    async def _fail(self, failures: Sequence[Leaf]) -> None:
        """Let failed leaves have their consequences."""
        for leaf in failures:
            frame = leaf.frame
            if not leaf.failed or frame.over or frame.error is not None:
                continue
            error = self._error_of(leaf)
            if leaf.node.step.on_error is OnError.CONTINUE:
                self._undo(frame, list(undoable_within(leaf)), error)
                continue
            scope = leaf.node.scopes[-1] if leaf.node.scopes else ""
            if not scope:
                await self._fail_frame(frame, error, f"step {leaf.path} failed")
                continue
            for victim in frame.leaves.values():
                if not victim.phase.over and scope in victim.node.scopes:
                    await self._skip(victim, f"step {leaf.path} failed")
            self._undo(frame, list(frame.undoable(scope)), error)

    async def _fail_frame(self, frame: Frame, error: JsonObject, why: str = "the plan failed") -> None:
        """Fail a frame: what is under way in it is stopped, and a plan's steps are undone."""
        frame.error = error
        for victim in frame.leaves.values():
            if not victim.phase.over:
                await self._skip(victim, why)
        if frame.outer is None:
            self._undo(frame, list(frame.undoable()), error)
            if frame.rescue is None and self._planned.plan.on_failure:
                frame.rescue = Rescue(error)
        if frame.rescue is not None:
            frame.rescue.error, frame.rescue.fatal = error, True
        else:
            await self._close(frame)

    def _error_of(self, leaf: Leaf) -> JsonObject:
        error = dict(mapping(leaf.envelope.get("error")))
        error.setdefault("step", self._scene.path(leaf))
        return error

    # Undoing

    def _undo(self, frame: Frame, leaves: list[Leaf], error: JsonObject) -> None:
        """Have leaves undone, the last that ended first. Nothing new begins in the frame until that is done."""
        leaves = [leaf for leaf in leaves if not leaf.undone]
        for leaf in leaves:
            leaf.undone = True
        if not leaves:
            return
        if frame.rescue is None:
            frame.rescue = Rescue(error)
        frame.rescue.queue.extend(sorted(leaves, key=lambda leaf: -leaf.ended))

    async def _advance_rescue(self, frame: Frame, rescue: Rescue) -> bool:
        """Go on with undoing; True when something was opened, or all is done."""
        if rescue.frame is not None:
            if not rescue.frame.over:
                return False
            if rescue.frame.error is not None:
                undoes = rescue.frame.undoes
                what = f"{self._scene.path(undoes)} was not undone" if undoes is not None else "on_failure failed"
                rescue.troubles.append(f"{what}: {text(rescue.frame.error, 'message')}")
            rescue.frame = None
        if rescue.queue:
            leaf = rescue.queue.pop(0)
            leaf.undos += 1
            prefix = f"{leaf.path}.undo" if leaf.undos == 1 else f"{leaf.path}.undo{leaf.undos}"
            body = Body(steps=leaf.node.step.undo, names={"error": dict(rescue.error)})
            ledger = frame.ledger.exempt()
            rescue.frame = Frame(body, prefix=prefix, ledger=ledger, outer=leaf.frame, undoes=leaf)
            self._decided(leaf, f"it is undone, because {text(rescue.error, 'message')}")
            return True
        if rescue.fatal and not rescue.told and frame.outer is None and self._planned.plan.on_failure:
            rescue.told = True
            body = Body(steps=self._planned.plan.on_failure, names={"error": dict(rescue.error)})
            rescue.frame = Frame(body, prefix="on_failure", ledger=frame.ledger.exempt(), outer=frame)
            return True
        frame.rescue = None
        if rescue.troubles:
            frame.troubles.extend(rescue.troubles)
        if rescue.fatal:
            await self._close(frame)
        return True

    # Stopping

    async def _stop(self, frame: Frame, why: str) -> None:
        """Stop all that is under way in a frame, and leave it."""
        frame.over = True
        for leaf in frame.leaves.values():
            if not leaf.phase.over:
                await self._skip(leaf, why)
        if (rescue := frame.rescue) is not None:
            interrupted = [rescue.frame.undoes] if rescue.frame is not None else []
            for left in [*rescue.queue, *interrupted]:
                if left is not None:
                    left.undone = False  # whoever undoes the plan around it undoes these too
            if rescue.frame is not None:
                await self._stop(rescue.frame, why)

    async def _skip(self, leaf: Leaf, why: str) -> None:
        begun = leaf.phase is not Phase.WAITING
        await self._halt(leaf, why)
        leaf.phase = Phase.SKIPPED
        leaf.envelope = failed_because("CANCELED", f"not done, because {why}")
        leaf.frame.note_over(leaf)
        if begun or leaf.frame.outer is None:
            self._scene.tell(EventKind.STEP_CANCELED, self._scene.path(leaf), max(1, leaf.round), why=why)

    async def _halt(self, leaf: Leaf, why: str) -> None:
        """Stop what a leaf has under way."""
        phase, branch, timer = leaf.phase, leaf.branch, leaf.timer
        leaf.phase, leaf.branch, leaf.timer = Phase.SKIPPED, None, None
        if phase is Phase.IN_CHILD and branch is not None:
            await self._durable.cancel_child(leaf.child)
        for one in (branch, timer):
            if one is not None:
                await one.drop()
        if phase is Phase.ASKING and branch is not None:
            self._asking.close(leaf, why)
        if phase is Phase.RECEIVING:
            self._waiting.close(leaf)
        for frame in leaf.frames:
            if not frame.over:
                await self._stop(frame, why)

    # Values

    def _values(self, frame: Frame) -> dict[str, object]:
        """Return what templates in a frame see."""
        return {
            "inputs": self._planned.inputs,
            "goal": self._goal,
            "memory": self._memory.values,
            "steps": frame.steps(),
            **frame.names,
        }

    async def _unpack(self, envelope: JsonObject) -> StepValue:
        name = text(envelope, "blob")
        if not name:
            return StepValue.load(mapping(envelope.get("value")))
        return StepValue.load(await outlasting(lambda: anyio.to_thread.run_sync(load_blob, self._database, name)))

    async def _outcome(self, root: Frame) -> JsonObject:
        if root.error is not None:
            error = dict(root.error)
            # One agent that declines has rejected the run; one of several has failed it.
            if len(root.leaves) == 1 and error.get("reason") == TABLE[RemoteRejected].reason:
                error["rejected"] = True
            else:
                error.pop("rejected", None)
            if root.troubles:
                error["message"] = f"{text(error, 'message')}; {'; '.join(root.troubles)}"
            return {"ok": False, "error": error}
        made = [artifact for leaf in root.leaves.values() for artifact in self._made(leaf)]
        return await pack(self._journal, replace(root.value, artifacts=tuple(made)), self._scene.root)

    def _made(self, leaf: Leaf) -> list[Artifact]:
        """Return what a leaf and those within it made, each with its step's path before its id."""
        if leaf.frames:
            return [made for frame in leaf.frames for inner in frame.leaves.values() for made in self._made(inner)]
        if leaf.child:
            return list(leaf.value.artifacts)
        return list(named_artifacts(self._scene.path(leaf), leaf.value.artifacts))

    # Telling

    def _decided(self, leaf: Leaf, why: str) -> None:
        leaf.decisions += 1
        self._scene.tell_nth(leaf.decisions - 1, EventKind.STEP_DECIDED, self._scene.path(leaf), 1, {"why": why})

    def _tell_plan(self, planned: Planned, root: Frame) -> None:
        steps: list[Json] = []
        for node in root.graph.nodes:
            call = call_of(node.step)
            steps.append(
                {
                    "path": self._scene.absolute(node.path),
                    "title": node.step.title,
                    "agent": call.agent if call is not None else "",
                    "need": call.need if call is not None else "",
                    "capability": call.capability if call is not None else "",
                    "after": [self._scene.absolute(path) for path in node.after],
                }
            )
        name = planned.plan.name
        payload: dict[str, Json] = {"planner": planned.planner, "why": planned.why, "name": name, "steps": steps}
        self._scene.tell(EventKind.RUN_PLANNED, self._scene.prefix, 0, **payload)


_NOT_FOR_OTHERS = frozenset({"BUDGET_EXCEEDED", "PLAN_INVALID", "CANCELED"})
"""Failures that another agent would not mend."""


def _open(frame: Frame) -> Iterator[Frame]:
    """Yield a frame and those within it that are not over, in the order of the plan."""
    yield frame
    for leaf in frame.leaves.values():
        for inner in leaf.frames:
            if not inner.over:
                yield from _open(inner)
    if frame.rescue is not None and frame.rescue.frame is not None and not frame.rescue.frame.over:
        yield from _open(frame.rescue.frame)


def _template_failed(error: TemplateFailed) -> dict[str, Json]:
    return failed_because("PLAN_INVALID", f"a template of this step failed: {error}", attempts=1)


def _shortest(*seconds: float | None) -> float | None:
    return min((one for one in seconds if one is not None), default=None)
