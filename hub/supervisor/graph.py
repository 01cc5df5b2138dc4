"""A list of steps as the flat graph that is carried out: its leaves, and what each of them comes after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from .model import LeafStep, OnError, ParallelStep, SequenceStep, Step


@dataclass(frozen=True, kw_only=True)
class Node:
    """One leaf of compiled steps."""

    path: str
    """Its place within these steps."""
    step: LeafStep
    after: tuple[str, ...]
    """Paths of the leaves that must have ended, in the order of the plan."""
    scopes: tuple[str, ...]
    """The groups around it whose failure does not fail the plan, outermost first."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Compiled steps: their leaves in the order of the plan, each after those it depends on or beside them."""

    nodes: tuple[Node, ...]
    members: Mapping[str, tuple[str, ...]]
    """Step id, of a group too, to the paths of its leaves in order."""

    def node(self, path: str) -> Node:
        """Return the leaf at a path."""
        return next(node for node in self.nodes if node.path == path)

    def before(self, path: str) -> frozenset[str]:
        """Return the paths of all leaves that have ended when this one starts."""
        after = {node.path: node.after for node in self.nodes}
        found: set[str] = set()
        waiting = list(after[path])
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(after[name])
        return frozenset(found)


class PlanCyclic(ValueError):
    """Steps need each other in a circle."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(tuple(ids))
        self.ids = tuple(ids)

    def __str__(self) -> str:
        return f"the steps need each other in a circle: {' needs '.join(self.ids)}"


def compile_steps(steps: Sequence[Step]) -> Graph:
    """Turn a list of steps, with the groups in it, into leaves with dependencies.

    Raises:
        PlanCyclic: steps need each other in a circle.
        KeyError: a step needs one that is not there (`plan_check.check_plan` finds it first).
    """
    drafts: list[_Draft] = []
    members: dict[str, tuple[str, ...]] = {}

    def lay(
        step: Step, prefix: str, entry: tuple[str, ...], needs: tuple[str, ...], scopes: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Lay out a step and return its exits: the leaves that must have ended for what follows it."""
        path = f"{prefix}.{step.id}" if prefix and step.id else (step.id or prefix)
        needs = (*needs, *step.needs)
        before = len(drafts)
        inner = (*scopes, f"{path}!{len(scopes)}.{before}") if step.on_error is OnError.CONTINUE else scopes
        match step:
            case SequenceStep():
                exits = entry
                for child in step.sequence:
                    exits = lay(child, path, exits, needs, inner)
            case ParallelStep():
                exits = tuple(exit for child in step.parallel for exit in lay(child, path, entry, needs, inner))
            case _:
                drafts.append(_Draft(path, step, entry, needs, scopes))
                exits = (path,)
        if step.id:
            members[step.id] = tuple(draft.path for draft in drafts[before:])
        return exits

    entry: tuple[str, ...] = ()
    for step in steps:
        entry = lay(step, "", entry, (), ())
    place = {draft.path: number for number, draft in enumerate(drafts)}
    nodes: list[Node] = []
    for draft in drafts:
        after = {*draft.entry, *(path for name in draft.needs for path in members[name])}
        ordered = tuple(sorted(after, key=place.__getitem__))
        nodes.append(Node(path=draft.path, step=draft.step, after=ordered, scopes=draft.scopes))
    try:
        TopologicalSorter({node.path: node.after for node in nodes}).prepare()
    except CycleError as error:
        raise PlanCyclic([str(path) for path in reversed(error.args[1])]) from None
    return Graph(nodes=tuple(nodes), members=members)


@dataclass(frozen=True)
class _Draft:
    path: str
    step: LeafStep
    entry: tuple[str, ...]
    needs: tuple[str, ...]
    scopes: tuple[str, ...]
