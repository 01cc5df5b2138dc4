"""Steps that are carried out together: those of a plan, of one item of a map, one turn of a loop, one branch, an undo.

A plan is a frame; steps that have steps within them open frames of their own when their time comes. All of them belong
to one execution, which goes through them always in the same order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from interhub.adapters import TextPart
from interhub.agent_cards import Json, JsonObject

from .blocks import Block, Body
from .consulting import Dialogue
from .durable import Branch
from .envelope import StepValue
from .graph import Graph, Node, compile_steps
from .ledger import Ledger
from .order import Order
from .shown import Shown


class Phase(Enum):
    """Where a leaf is."""

    WAITING = "waiting"
    """For the steps before it."""
    CALLING = "calling"
    IN_CHILD = "in_child"
    ASKING = "asking"
    RECEIVING = "receiving"
    """A time, or an event."""
    INSIDE = "inside"
    """Its own steps are carried out."""
    WRITING = "writing"
    """A model writes the arguments of its call."""
    ENDED = "ended"
    SKIPPED = "skipped"

    @property
    def over(self) -> bool:
        """True when nothing more comes of the leaf."""
        return self in (Phase.ENDED, Phase.SKIPPED)


@dataclass(eq=False, kw_only=True)
class Leaf:
    """One leaf as the run goes on."""

    node: Node
    frame: "Frame"
    ledger: Ledger
    phase: Phase = Phase.WAITING
    branch: Branch | None = None
    """What it waits for."""
    timer: Branch | None = None
    """Ends when the step has lasted too long."""
    envelope: JsonObject = field(default_factory=dict[str, Json])
    order: Order | None = None
    asked: JsonObject = field(default_factory=dict[str, Json])
    """The envelope of the question that it waits for."""
    round: int = 0
    """How many questions of its were answered, and agents turned to after the first."""
    fallback: int = 0
    """How many agents were turned to after the first."""
    child: str = ""
    block: Block | None = None
    frames: "list[Frame]" = field(default_factory=list["Frame"])
    """Those it has opened."""
    value: StepValue = field(default_factory=StepValue)
    errors: list[Json] | None = None
    ended: int = 0
    """Which it was among the steps of the plan that ended well, from 1."""
    undone: bool = False
    """It is undone, or is about to be."""
    undos: int = 0
    """How often that was begun: it may be cut short, and begun again."""
    counted: int = 0
    """How many of its calls the budgets know of."""
    decisions: int = 0
    """How many of its decisions were told."""
    dialogue: Dialogue = field(default_factory=Dialogue)
    """With the model that writes its call's arguments."""
    writes: int = 0
    """How often that was asked."""
    pending: tuple[Body, ...] = ()
    """What it begins after a pause."""

    @property
    def path(self) -> str:
        """Its place within the plan."""
        return f"{self.frame.prefix}.{self.node.path}" if self.frame.prefix else self.node.path

    @property
    def ok(self) -> bool:
        """True when it has ended well."""
        return self.phase is Phase.ENDED and self.envelope.get("ok") is True

    @property
    def failed(self) -> bool:
        """True when it has ended without a value."""
        return self.phase is Phase.ENDED and self.envelope.get("ok") is not True

    def shown(self) -> Shown:
        """Return it as templates see it."""
        return Shown.of(self.value, self.envelope.get("error"), self.errors)


class Frame:
    """Steps that are carried out together."""

    def __init__(
        self,
        body: Body,
        *,
        prefix: str,
        ledger: Ledger,
        outer: "Frame | None" = None,
        owner: Leaf | None = None,
        undoes: Leaf | None = None,
    ) -> None:
        """`outer` is the frame whose steps templates see too; `owner` the leaf whose steps these are."""
        self.body = body
        self.prefix = prefix
        self.ledger = ledger
        self.outer = outer
        self.owner = owner
        self.undoes = undoes
        """The leaf that they undo."""
        self.names: dict[str, Json] = {**(outer.names if outer is not None else {}), **body.names}
        self.graph: Graph = compile_steps(body.steps)
        self.leaves: dict[str, Leaf] = {
            node.path: Leaf(node=node, frame=self, ledger=ledger.within(node.step.budget)) for node in self.graph.nodes
        }
        self.over = False
        self.error: JsonObject | None = None
        """Why it failed; None while it has not."""
        self.value = StepValue()
        self.rescue: Rescue | None = None
        self.troubles: list[str] = []
        """What could not be undone."""
        self._shown: dict[str, object] = {}
        self._groups: dict[str, list[str]] = {}
        for name, paths in self.graph.members.items():
            for path in paths:
                self._groups.setdefault(path, []).append(name)

    def note_over(self, leaf: Leaf) -> None:
        """Take note that a leaf is over: templates see it from now on, and its groups once all in them are over."""
        for name in self._groups.get(leaf.node.path, ()):
            leaves = [self.leaves[path] for path in self.graph.members[name]]
            if len(leaves) == 1 and leaves[0].node.step.id == name:
                self._shown[name] = leaf.shown()
            elif all(one.phase.over for one in leaves):
                self._shown[name] = _shown_group(leaves)

    def steps(self) -> Mapping[str, object]:
        """Return the steps that templates see, those of the frames around it too."""
        if self.outer is None:
            return self._shown
        return {**self.outer.steps(), **self._shown}

    def ready(self, leaf: Leaf) -> bool:
        """Return whether a leaf's time has come."""
        return leaf.phase is Phase.WAITING and all(self.leaves[path].phase.over for path in leaf.node.after)

    def answer(self) -> StepValue:
        """Return the answer of the leaves that nothing comes after: the one's own, or all of them together."""
        leaves = list(self.leaves.values())
        followed = {path for leaf in leaves for path in leaf.node.after}
        ends = [leaf for leaf in leaves if leaf.node.path not in followed and leaf.ok]
        ends = ends or [leaf for leaf in leaves if leaf.ok][-1:]
        if len(ends) == 1:
            one = ends[0].value
            shown = one.parts or tuple(part for artifact in one.artifacts for part in artifact.parts)
            alone = len(leaves) == 1 and one.as_message
            return StepValue(parts=shown, structured=one.structured, as_message=alone)
        data: dict[str, Json] = {leaf.node.step.id: leaf.value.data for leaf in ends if leaf.value.data is not None}
        return StepValue(parts=tuple(part for leaf in ends for part in leaf.value.parts), structured=data or None)

    def all_leaves(self) -> Iterator[Leaf]:
        """Yield its leaves and all within them, in the order of the plan; undoing steps come last."""
        for leaf in self.leaves.values():
            yield leaf
            for frame in leaf.frames:
                yield from frame.all_leaves()
        if self.rescue is not None and self.rescue.frame is not None:
            yield from self.rescue.frame.all_leaves()

    def undoable(self, scope: str = "") -> Iterator[Leaf]:
        """Yield the leaves that have ended well and say how they are undone; with a scope, those in it.

        A step that has steps within it and says how it is undone stands for these.
        """
        for leaf in self.leaves.values():
            if not scope or scope in leaf.node.scopes:
                yield from undoable_within(leaf)


def undoable_within(leaf: Leaf) -> Iterator[Leaf]:
    """Yield the leaf itself, or those within it, that have ended well and say how they are undone."""
    if leaf.ok and leaf.node.step.undo:
        if not leaf.undone:
            yield leaf
        return
    for frame in leaf.frames:
        yield from frame.undoable()


@dataclass(eq=False)
class Rescue:
    """Undoing what was done, because something failed. Meanwhile nothing new begins in the frame."""

    error: JsonObject
    queue: list[Leaf] = field(default_factory=list[Leaf])
    frame: Frame | None = None
    """What is carried out now."""
    troubles: list[str] = field(default_factory=list[str])
    fatal: bool = False
    """The frame has failed, not only a part of it."""
    told: bool = False
    """The plan's own steps for its failure were begun."""


def _shown_group(leaves: list[Leaf]) -> Shown:
    """A group as templates see it: the texts of its leaves one to a line, their data by id, its errors."""
    errors = [leaf.envelope.get("error") for leaf in leaves if leaf.failed]
    value = StepValue(
        parts=tuple(TextPart(text=leaf.value.text) for leaf in leaves if leaf.value.text),
        structured={leaf.node.step.id: leaf.value.data for leaf in leaves},
        artifacts=tuple(artifact for leaf in leaves for artifact in leaf.value.artifacts),
    )
    return Shown.of(value, errors[0] if errors else None, errors)
