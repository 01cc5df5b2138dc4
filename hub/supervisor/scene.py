"""What all steps of one execution share: whose run it is, where in the tree, what was asked, and where it is told."""

from interhub.adapters.content import message_from_json
from interhub.agent_cards import Json, JsonObject

from .durable import Durable
from .envelope import mapping, principal_from_json, text
from .frame import Leaf
from .journal import Fact, Journal
from .model import Plan
from .planner import Planned
from .run import EventKind

NOT_PLANNED = Planned(plan=Plan.model_construct(steps=()), planner="")
"""Stands for a plan where there is none yet, or none is needed."""


class Scene:
    """One execution's surroundings."""

    def __init__(self, durable: Durable, given: JsonObject, journal: Journal) -> None:
        self.durable = durable
        self.given = given
        self.journal = journal
        self.root = text(given, "root")
        self.prefix = text(given, "prefix")
        self.branch = text(mapping(given.get("lineage")), "branch")
        """The account of the tree that it is in (`guards`); empty where its root begins one."""
        self.goal = message_from_json(mapping(given.get("goal")))
        self.principal = principal_from_json(mapping(given.get("principal")))
        self.planned = NOT_PLANNED
        """What is carried out."""
        self.consulted = 0
        """How often a model was asked for it as a whole, not for one of its steps."""

    def absolute(self, path: str) -> str:
        """Return a path within this plan as one from the root run on."""
        return f"{self.prefix}.{path}" if self.prefix else path

    def path(self, leaf: Leaf) -> str:
        """Return a leaf's place from the root run on."""
        return self.absolute(leaf.path)

    def tell(self, kind: EventKind, step: str = "", attempt: int = 0, **payload: Json) -> None:
        """Tell the journal."""
        self.tell_nth(0, kind, step, attempt, payload)

    def tell_nth(self, number: int, kind: EventKind, step: str, attempt: int, payload: JsonObject) -> None:
        """Tell the journal of one of several events of a kind within an attempt; `number` counts them from 0."""
        self.journal.post(Fact(run_id=self.root, kind=kind, step=step, attempt=attempt, n=number, payload=payload))

    def decided(self, leaf: Leaf, why: str) -> None:
        """Tell how a leaf with steps of its own goes on."""
        leaf.decisions += 1
        self.tell_nth(leaf.decisions - 1, EventKind.STEP_DECIDED, self.path(leaf), 1, {"why": why})

    def begin_leaf(self, leaf: Leaf, attempt: int) -> None:
        """Tell that a leaf's attempt begins. A leaf that no plan named beforehand says whose it is."""
        frame, step = leaf.frame, leaf.node.step
        if frame.outer is None:
            self.tell(EventKind.STEP_STARTED, self.path(leaf), attempt)
            return
        within = frame.owner
        if within is None and frame.undoes is not None:
            within = frame.undoes
        self.tell(
            EventKind.STEP_STARTED,
            self.path(leaf),
            attempt,
            within=self.path(within) if within is not None else self.prefix,
            title=step.title,
        )
