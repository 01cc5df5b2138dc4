"""One execution of one plan: which leaf begins when, what became of each, and what that means for the others.

Frame      steps that are carried out together; a plan is one, and its maps, loops and choices open more
Leaf       one step of a frame, and the one recorded call at a time that it waits for
Execution  goes through all of them, always in the same order
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import anyio.to_thread
import sqlalchemy as sa

from interhub.adapters import Artifact
from interhub.adapters.content import parts_from_json
from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import BudgetExceeded

from .asking import Asking, answered, question_of
from .blobs import load_blob, pack
from .blocks import Body, Closed, Next, block_of
from .consulting import ATTEMPTS, Dialogue, given_up, model_payload
from .delegation import Delegator
from .durable import Branch
from .envelope import (
    StepValue,
    attempts_of,
    failed,
    failed_because,
    mapping,
    number,
    text,
    usage_from_json,
)
from .facts import end_fact, routed_fact
from .failing import Failing
from .frame import Frame, Leaf, Phase
from .journal import outlasting
from .ledger import Ledger, spent_of
from .memory import Memory
from .model import MAX_LEAVES, AskStep, CallStep, Fallback, PlanStep, TeamStep, WaitStep
from .orders import call_of, order_after_answer, order_for_another, order_of, order_with_arguments
from .outcome import artifacts_of, outcome_of, tell_plan
from .outputs import fitted
from .pauses import Pauses
from .planner import Planned
from .recalls import Recalls
from .rerun import Earlier
from .run import EventKind
from .scene import Scene
from .shown import Shown
from .starting import Starter
from .template import TemplateFailed, render_all
from .waits import Signals, Waiting, received, wanted


class Execution:
    """One execution of one plan."""

    def __init__(
        self,
        scene: Scene,
        planned: Planned,
        *,
        memory: Memory,
        ledger: Ledger,
        earlier: Earlier,
        delegator: Delegator,
        signals: Signals,
        pauses: Pauses,
        recalls: Recalls,
        database: sa.Engine,
    ) -> None:
        """`ledger` counts for the run, over all the plans that it comes to; so does `memory` remember."""
        self._planned = planned
        self._earlier = earlier
        self._pauses = pauses
        self._durable = scene.durable
        self._given = scene.given
        self._journal = scene.journal
        self._database = database
        self._scene = scene
        self._asking = Asking(self._scene, delegator.audit, recalls)
        self._waiting = Waiting(self._scene, signals)
        self._memory = memory
        self._starter = Starter(self._scene, delegator, self._memory)
        put_off = planned.round < planned.replans
        self._failing = Failing(self._scene, self._asking, self._waiting, self._close, put_off=put_off)
        self._goal = Shown.of(StepValue(parts=self._scene.goal.parts))
        self._clock: Branch | None = None
        self._wall_s: float | None = None
        """Seconds that the plan may last: the same in every replay, as its failure names them."""
        self._ended = 0
        names: JsonObject = {"earlier": planned.gave} if planned.round else {}
        body = Body(steps=planned.plan.steps, output=cast("Json", planned.plan.output), names=names)
        prefix = f"replan{planned.round}" if planned.round else ""
        self._root = Frame(body, prefix=prefix, ledger=ledger.within(planned.plan.budget))
        self._leaves = len(self._root.leaves)

    async def carry_out(self) -> JsonObject:
        """Carry out the plan and return its envelope. Where another plan may follow, nothing is undone yet."""
        self._scene.planned = self._planned
        plan = self._planned.plan
        tell_plan(self._scene, self._root)
        own_s = plan.budget.wall_s if plan.budget is not None else None
        # Of the whole tree's time its root takes care. The engine records when a wait ends: a replay waits no longer.
        until = self._root.ledger.left().until if not self._scene.prefix else None
        left_s = max(0.001, until - time.time()) if until is not None else None
        self._wall_s = _shortest(own_s, number(self._given, "wall_s") if until is not None else None)
        within_s = _shortest(own_s, left_s)
        if within_s is not None:
            self._clock = await self._durable.begin_receive("clock", within_s)
        await self._go(self._root)
        if self._clock is not None:
            await self._clock.drop()
            self._clock = None  # what is undone later has no time limit
        return await outcome_of(self._scene, self._root)

    async def undo(self) -> tuple[str, ...]:
        """Undo what a plan that has failed did, where that was put off; returns what could not be undone."""
        root = self._root
        if not self._failing.put_off or root.error is None:
            return ()
        self._scene.planned = self._planned
        self._failing.put_off = False
        root.over = False
        before = len(root.troubles)
        await self._failing.fail_frame(root, root.error)
        await self._go(root)
        return tuple(root.troubles[before:])

    def gave(self) -> dict[str, Json]:
        """Return what the plan's own steps gave, by id, as JSON: for another plan, or for whoever writes the answer."""
        found: dict[str, Json] = {}
        for leaf in self._root.leaves.values():
            if leaf.phase is Phase.ENDED:
                error = text(mapping(leaf.envelope.get("error")), "message") if leaf.failed else None
                found[leaf.node.step.id] = {
                    "id": leaf.node.step.id,
                    "agent": text(leaf.envelope, "agent"),
                    "text": str(leaf.value.text),
                    "data": leaf.value.data,
                    "error": error,
                }
        return found

    def artifacts(self) -> tuple[Artifact, ...]:
        """Return what its steps made."""
        return artifacts_of(self._scene, self._root)

    async def _go(self, root: Frame) -> None:
        await self._advance(root)
        while not root.over:
            waited = self._waited_for(root)
            assert waited, "a frame that is not over waits for something"
            done = await self._durable.wait([branch for branch, _ in waited])
            ended = [(branch, leaf) for branch, leaf in waited if branch in done]
            if self._pauses.paused(self._scene.root):
                self._tell_ends(ended)
                await self._pauses.passed(self._scene.root)
            await self._take(root, ended)
            await self._advance(root)

    def _tell_ends(self, ended: Sequence[tuple[Branch, Leaf | None]]) -> None:
        """Tell of calls that have ended while the run is paused: they are taken only when it goes on."""
        for branch, leaf in ended:
            if leaf is not None and branch is leaf.branch and leaf.phase is Phase.CALLING:
                envelope = mapping(branch.result())
                if "ok" in envelope:
                    self._journal.post(end_fact(self._scene.root, self._scene.path(leaf), envelope))

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
            return await self._failing.advance(frame, frame.rescue)
        news = False
        for leaf in list(frame.leaves.values()):
            if not frame.ready(leaf):
                continue
            await self._begin(leaf)
            news |= leaf.phase.over or leaf.phase is Phase.INSIDE
            if leaf.failed:
                await self._failing.fail([leaf])
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
                await self._failing.fail_frame(frame, {"reason": "PLAN_INVALID", "message": message})
                return
        else:
            frame.value = frame.answer()
        if frame.outer is None and self._scene.planned.plan.output_schema is not None:
            value, problem = fitted(frame.value, cast("JsonObject", self._scene.planned.plan.output_schema))
            if problem:
                await self._failing.fail_frame(frame, {"reason": "OUTPUT_INVALID", "message": problem})
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
            self._failing.undo(owner.frame, list(frame.undoable()), frame.error)
        try:
            await self._follow(owner, owner.block.closed(closed))
        except TemplateFailed as error:
            await self._end_inside(owner, _template_failed(error))
        if owner.failed:
            await self._failing.fail([owner])

    async def _follow(self, leaf: Leaf, following: Next) -> None:
        """Do what a block says comes next."""
        if following.why:
            self._scene.decided(leaf, following.why)
        if following.error is not None:
            await self._end_inside(leaf, {"ok": False, "error": following.error, "attempts": 1})
        elif following.value is not None:
            leaf.errors = list(following.errors) if following.errors else None
            await self._end_inside(leaf, await pack(self._journal, following.value, self._scene.root), following.value)
        elif following.pause_s > 0 and leaf.path not in self._earlier.steps:
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
                await self._failing.stop(frame, f"step {leaf.path} has ended")
        await self._end(leaf, {"attempts": 1, **envelope}, value=value)

    # Beginning leaves

    async def _begin(self, leaf: Leaf) -> None:
        await self._pauses.passed(self._scene.root)
        step = leaf.node.step
        values = self._values(leaf.frame)
        self._scene.begin_leaf(leaf, 1)
        refused: JsonObject | None = None
        try:
            if (kept := self._earlier.envelope(leaf.path, step)) is not None:
                await self._keep(leaf, kept)
                return
            spec = call_of(step)
            if spec is not None:
                refused = await self._starter.call(leaf, order_of(self._scene, leaf, spec, self._scene.planned, values))
            elif isinstance(step, PlanStep) and step.plan.workflow is not None:
                inputs = mapping(render_all(cast("Json", step.plan.inputs), values))
                refused = await self._starter.child(
                    leaf, self._scene.planned, workflow=step.plan.workflow.dump(), inputs=inputs, remembers=True
                )
            elif isinstance(step, TeamStep):
                refused = await self._starter.team(leaf, step, values)
            elif isinstance(step, AskStep):
                asker = (self._scene.planned.trail or (self._scene.planned.plan.name or "workflow",))[-1]
                leaf.asked = question_of(self._scene, leaf, step, asker, values)
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
            refused = _template_failed(error)
        if refused is not None:
            await self._end(leaf, refused)
        if not leaf.phase.over and not isinstance(step, AskStep | WaitStep):
            within_s = _shortest(step.timeout_s, step.budget.wall_s if step.budget is not None else None)
            if within_s is not None:
                leaf.timer = await self._durable.begin_receive(f"timer:{leaf.path}", within_s)

    async def _keep(self, leaf: Leaf, envelope: JsonObject) -> None:
        """End a leaf as it ended in the run that this one takes over from, which has paid for what it used."""
        self._scene.decided(leaf, f"kept from run {self._earlier.run_id}")
        if isinstance(leaf.node.step, PlanStep):
            self._memory.take_back(envelope)
        value = replace(await self._unpack(envelope), usage=None)
        await self._end(leaf, {**envelope, "attempts": attempts_of(envelope)}, final=True, value=value)

    # Taking what branches gave

    async def _take(self, root: Frame, ended: Sequence[tuple[Branch, Leaf | None]]) -> None:
        """Take the results of branches, in the order of the plan; then have failures their consequences."""
        more: list[Leaf] = []
        failures: list[Leaf] = []
        for branch, leaf in ended:
            if leaf is None:
                self._clock = None
                exceeded = BudgetExceeded("seconds", self._wall_s or 0)
                await self._failing.fail_frame(root, mapping(failed(exceeded)["error"]))
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
        await self._failing.fail(failures)
        for leaf in more:
            if not leaf.phase.over and leaf.branch is None:
                await self._go_on(leaf)
                if leaf.failed:
                    await self._failing.fail([leaf])

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
            case Phase.WRITING:
                await self._take_arguments(leaf, mapping(result))
            case _:
                await self._take_call(leaf, mapping(result))

    async def _take_call(self, leaf: Leaf, envelope: JsonObject) -> None:
        path = self._scene.path(leaf)
        told = leaf.order is not None and (path, leaf.order.first_attempt) in self._starter.told
        if not told and (routed := routed_fact(self._scene.root, path, envelope)) is not None:
            self._journal.post(routed)
        leaf.ledger.take_spent(mapping(envelope.get("below")))
        if "write" in envelope:
            leaf.asked, leaf.dialogue, leaf.phase = envelope, Dialogue(), Phase.WRITING
            return
        if "ask" in envelope or "child" in envelope:
            leaf.asked = envelope
            leaf.phase = Phase.ASKING if "ask" in envelope else Phase.IN_CHILD
            return
        await self._end(leaf, envelope)

    async def _take_arguments(self, leaf: Leaf, envelope: JsonObject) -> None:
        """Take what a model made of the words of a call: its arguments, or a mistake, which it is told of."""
        assert leaf.order is not None, "only calls have arguments"
        leaf.writes += 1
        leaf.ledger.take_usage(usage_from_json(mapping(envelope.get("usage"))))
        self._scene.tell_nth(0, EventKind.MODEL_ASKED, self._scene.path(leaf), leaf.writes, model_payload(envelope))
        attempts = attempts_of(leaf.asked)
        if envelope.get("ok") is True:
            leaf.order = order_with_arguments(leaf.order, leaf.asked, mapping(envelope.get("value")))
            leaf.phase = Phase.CALLING
            return
        if envelope.get("again") is True:
            leaf.dialogue.take(envelope)
            if not leaf.dialogue.over(ATTEMPTS):
                return
            envelope = given_up(text(envelope, "model"), leaf.dialogue, envelope)
        error = {"ok": False, "error": envelope.get("error"), "agent": text(leaf.asked, "agent"), "attempts": attempts}
        await self._end(leaf, error)

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
        if asked.get("approval") is True and answer.get("accepted") is not True:
            message = f"{text(answer, 'by') or 'somebody'} declined it"
            await self._end(leaf, failed_because("PERMISSION_DENIED", message, attempts=attempts))
            return
        leaf.round += 1
        leaf.order = order_after_answer(self._scene, leaf, answer)
        leaf.phase = Phase.CALLING

    async def _time_out(self, leaf: Leaf) -> None:
        """End a leaf that has lasted too long."""
        step = leaf.node.step
        leaf.timer = None
        within_s = _shortest(step.timeout_s, step.budget.wall_s if step.budget is not None else None)
        await self._failing.halt(leaf, "it lasted too long")
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
                order = leaf.order
                await self._starter.child(
                    leaf,
                    replace(self._scene.planned, members=order.members, trail=order.trail),
                    agent=text(child, "agent"),
                    arguments=mapping(child.get("arguments")),
                    parts=parts_from_json(child.get("parts")),
                )
            case Phase.WRITING:
                refused = await self._starter.write(leaf)
                if refused is not None:
                    await self._end(leaf, refused)
            case Phase.INSIDE:
                bodies, leaf.pending = leaf.pending, ()
                await self._open_bodies(leaf, bodies)
            case _:
                assert leaf.order is not None, "only calls are made again"
                self._scene.begin_leaf(leaf, leaf.order.first_attempt)
                refused = await self._starter.call(leaf, leaf.order)
                if refused is not None:
                    await self._end(leaf, refused)

    # Ending leaves

    async def _end(
        self,
        leaf: Leaf,
        envelope: JsonObject,
        *,
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
                envelope = {**problem, "attempts": attempts_of(envelope)}
                leaf.value = StepValue()
        self._journal.post(end_fact(self._scene.root, self._scene.path(leaf), envelope, leaf.value))
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
        leaf.fallback += 1
        leaf.round += 1
        leaf.child, leaf.asked = "", {}
        leaf.order = order_for_another(self._scene, leaf, fallback, envelope)
        leaf.phase = Phase.CALLING

    # Values

    def _values(self, frame: Frame) -> dict[str, object]:
        """Return what templates in a frame see."""
        return {
            "inputs": self._scene.planned.inputs,
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
