"""One leaf of a plan while a run goes on, and how what leaves gave is shown to templates and becomes the answer."""

from dataclasses import dataclass, field
from enum import Enum

from interhub.adapters import TextPart
from interhub.adapters.content import artifact_to_json
from interhub.agent_cards import Json, JsonObject

from .durable import Branch
from .envelope import StepValue
from .model import Node
from .order import Order


class Phase(Enum):
    """Where a leaf is."""

    WAITING = "waiting"
    CALLING = "calling"
    IN_CHILD = "in_child"
    ASKING = "asking"
    ENDED = "ended"
    SKIPPED = "skipped"

    @property
    def over(self) -> bool:
        """True when nothing more comes of the leaf."""
        return self in (Phase.ENDED, Phase.SKIPPED)


@dataclass
class Leaf:
    """One leaf as the run goes on."""

    node: Node
    phase: Phase = Phase.WAITING
    branch: Branch | None = None
    envelope: JsonObject = field(default_factory=dict[str, Json])
    order: Order | None = None
    asked: JsonObject = field(default_factory=dict[str, Json])
    """The envelope of the question that it waits for."""
    round: int = 0
    """How many questions of its were answered."""
    child: str = ""
    value: StepValue = field(default_factory=StepValue)

    @property
    def failed(self) -> bool:
        """True when it has ended without a value."""
        return self.phase is Phase.ENDED and self.envelope.get("ok") is not True


class Shown(str):
    """A value as templates see it: its text, and `text`, `data`, `artifacts`, `error`."""

    text: str
    data: Json
    artifacts: list[Json]
    error: Json

    @staticmethod
    def of(value: StepValue, error: Json = None) -> "Shown":
        """Make one of a value."""
        shown = Shown(value.text)
        shown.text = str(value.text)
        shown.data = value.data
        shown.artifacts = [artifact_to_json(artifact) for artifact in value.artifacts]
        shown.error = error
        return shown


def shown_leaf(leaf: Leaf) -> Shown:
    """A leaf as templates see it."""
    return Shown.of(leaf.value, leaf.envelope.get("error"))


def shown_group(leaves: list[Leaf]) -> Shown:
    """A group as templates see it: the texts of its leaves one to a line, their data by id, its first error."""
    errors = [leaf.envelope.get("error") for leaf in leaves if leaf.failed]
    value = StepValue(
        parts=tuple(TextPart(text=leaf.value.text) for leaf in leaves if leaf.value.text),
        structured={leaf.node.step.id: leaf.value.data for leaf in leaves},
        artifacts=tuple(artifact for leaf in leaves for artifact in leaf.value.artifacts),
    )
    return Shown.of(value, errors[0] if errors else None)


def last_answer(leaves: list[Leaf]) -> StepValue:
    """Return the answer of the leaves that nothing comes after: the one's own, or all of them together."""
    followed = {path for leaf in leaves for path in leaf.node.after}
    ends = [leaf for leaf in leaves if leaf.node.path not in followed and leaf.envelope.get("ok") is True]
    ends = ends or [leaf for leaf in leaves if leaf.envelope.get("ok") is True][-1:]
    if len(ends) == 1:
        one = ends[0].value
        shown = one.parts or tuple(part for artifact in one.artifacts for part in artifact.parts)
        alone = len(leaves) == 1 and one.as_message
        return StepValue(parts=shown, structured=one.structured, as_message=alone)
    data: dict[str, Json] = {leaf.node.step.id: leaf.value.data for leaf in ends if leaf.value.data is not None}
    return StepValue(parts=tuple(part for leaf in ends for part in leaf.value.parts), structured=data or None)
