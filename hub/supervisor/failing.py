"""What follows when a step fails: others are stopped, what was done is undone, a plan's own steps for it are begun."""

from collections.abc import Awaitable, Callable, Sequence

from interhub.agent_cards import JsonObject

from .asking import Asking
from .blocks import Body
from .envelope import failed_because, mapping, text
from .frame import Frame, Leaf, Phase, Rescue, undoable_within
from .model import OnError
from .run import EventKind
from .scene import Scene
from .waits import Waiting


class Failing:
    """Lets failures have their consequences, in the order of the plan."""

    def __init__(
        self,
        scene: Scene,
        asking: Asking,
        waiting: Waiting,
        close: Callable[[Frame], Awaitable[None]],
        *,
        put_off: bool = False,
    ) -> None:
        """`close` takes note that a frame is over, and lets the step whose steps these are go on."""
        self.put_off = put_off
        """What a plan did is not undone yet, when it fails: another may follow, and build on it."""
        self._scene = scene
        self._durable = scene.durable
        self._asking = asking
        self._waiting = waiting
        self._close = close

    async def fail(self, failures: Sequence[Leaf]) -> None:
        """Let failed leaves have their consequences."""
        for leaf in failures:
            frame = leaf.frame
            if not leaf.failed or frame.over or frame.error is not None:
                continue
            error = self._error_of(leaf)
            if leaf.node.step.on_error is OnError.CONTINUE:
                self.undo(frame, list(undoable_within(leaf)), error)
                continue
            scope = leaf.node.scopes[-1] if leaf.node.scopes else ""
            if not scope:
                await self.fail_frame(frame, error, f"step {leaf.path} failed")
                continue
            for victim in frame.leaves.values():
                if not victim.phase.over and scope in victim.node.scopes:
                    await self._skip(victim, f"step {leaf.path} failed")
            self.undo(frame, list(frame.undoable(scope)), error)

    async def fail_frame(self, frame: Frame, error: JsonObject, why: str = "the plan failed") -> None:
        """Fail a frame: what is under way in it is stopped, and a plan's steps are undone."""
        frame.error = error
        for victim in frame.leaves.values():
            if not victim.phase.over:
                await self._skip(victim, why)
        if frame.outer is None and not self.put_off:
            self.undo(frame, list(frame.undoable()), error)
            if frame.rescue is None and self._scene.planned.plan.on_failure:
                frame.rescue = Rescue(error)
        if frame.rescue is not None:
            frame.rescue.error, frame.rescue.fatal = error, True
        else:
            await self._close(frame)

    def _error_of(self, leaf: Leaf) -> JsonObject:
        error = dict(mapping(leaf.envelope.get("error")))
        error.setdefault("step", self._scene.path(leaf))
        return error

    def undo(self, frame: Frame, leaves: list[Leaf], error: JsonObject) -> None:
        """Have leaves undone, the last that ended first. Nothing new begins in the frame until that is done."""
        leaves = [leaf for leaf in leaves if not leaf.undone]
        for leaf in leaves:
            leaf.undone = True
        if not leaves:
            return
        if frame.rescue is None:
            frame.rescue = Rescue(error)
        frame.rescue.queue.extend(sorted(leaves, key=lambda leaf: -leaf.ended))

    async def advance(self, frame: Frame, rescue: Rescue) -> bool:
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
            self._scene.decided(leaf, f"it is undone, because {text(rescue.error, 'message')}")
            return True
        failed = rescue.fatal and frame.outer is None and not self.put_off
        if failed and not rescue.told and self._scene.planned.plan.on_failure:
            rescue.told = True
            body = Body(steps=self._scene.planned.plan.on_failure, names={"error": dict(rescue.error)})
            prefix = f"{frame.prefix}.on_failure" if frame.prefix else "on_failure"
            rescue.frame = Frame(body, prefix=prefix, ledger=frame.ledger.exempt(), outer=frame)
            return True
        frame.rescue = None
        if rescue.troubles:
            frame.troubles.extend(rescue.troubles)
        if rescue.fatal:
            await self._close(frame)
        return True

    async def stop(self, frame: Frame, why: str) -> None:
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
                await self.stop(rescue.frame, why)

    async def _skip(self, leaf: Leaf, why: str) -> None:
        begun = leaf.phase is not Phase.WAITING
        await self.halt(leaf, why)
        leaf.phase = Phase.SKIPPED
        leaf.envelope = failed_because("CANCELED", f"not done, because {why}")
        leaf.frame.note_over(leaf)
        if begun or leaf.frame.outer is None:
            self._scene.tell(EventKind.STEP_CANCELED, self._scene.path(leaf), max(1, leaf.round), why=why)

    async def halt(self, leaf: Leaf, why: str) -> None:
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
        if phase is Phase.IN_CHILD and branch is not None:
            await self._asking.close_within(leaf, why)
            self._waiting.close_within(leaf)
        for frame in leaf.frames:
            if not frame.over:
                await self.stop(frame, why)
