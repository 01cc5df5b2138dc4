"""What is noted of a step while it is carried out: told to the journal, and remembered under its idempotency key."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import sqlalchemy as sa

from interhub.adapters import ArtifactChunk, LogLine, Progress, TaskBound, Update
from interhub.adapters.content import artifact_to_json
from interhub.agent_cards import Capability, Json
from interhub.registry import Agent
from interhub.registry.database import reading

from . import records
from .envelope import named_artifact
from .journal import Fact, Journal
from .order import Order
from .records import Delegation
from .run import EventKind

AGAIN = 1
"""Number (`n`) of the failure that another attempt follows: the step may still end at the attempt that failed so."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What is known of a step that was begun before, by a process that may have ended in the midst of it."""

    delegation: Delegation | None = None
    attempt: int = 0
    """Its last attempt that was told; 0 for none."""
    told: Mapping[EventKind, int] = field(default_factory=dict[EventKind, int])
    """How many events of each kind were told of that attempt: those that follow are counted on from there."""


class Notes:
    """Takes the notes of all steps."""

    def __init__(self, journal: Journal, database: sa.Engine) -> None:
        self._journal = journal
        self._database = database

    def tell(self, order: Order, kind: EventKind, attempt: int, n: int = 0, **payload: Json) -> None:
        """Tell the journal of a step; `n` counts events of a kind within an attempt."""
        self._journal.post(Fact(run_id=order.run_id, kind=kind, step=order.step, attempt=attempt, n=n, payload=payload))

    def known(self, order: Order) -> Delegation | None:
        """Return what was decided of a step before."""
        with reading(self._database) as connection:
            return records.find_delegation(connection, order.key)

    def begun(self, order: Order) -> Begun:
        """Return what was decided and told of a step before.

        That is all, also where the call was made in this process: a short run's question was written after it.
        """
        with reading(self._database) as connection:
            known = records.find_delegation(connection, order.key)
            attempt, told = records.last_attempt(connection, order.run_id, order.step)
            return Begun(delegation=known, attempt=attempt, told=told)

    async def remember(self, delegation: Delegation) -> None:
        """Keep what was decided, before going on."""
        now = datetime.now(UTC)
        await self._journal.write(lambda connection: records.put_delegation(connection, delegation, now))

    def note(self, delegation: Delegation) -> None:
        """Keep what was decided, without waiting until it is written."""
        now = datetime.now(UTC)
        self._journal.post_change(lambda connection: records.put_delegation(connection, delegation, now))


class Teller:
    """Takes what an agent reports of a call, and remembers its task before going on."""

    def __init__(
        self,
        notes: Notes,
        order: Order,
        agent: Agent,
        capability: Capability,
        attempt: int,
        begun: Begun,
    ) -> None:
        self._notes = notes
        self._order = order
        self._counts = dict(begun.told) if attempt == begun.attempt else {}
        self._again = EventKind.STEP_ARTIFACT in self._counts
        """Artifacts were told of when the call was made before."""
        self._made: set[str] = set()
        """Those that are told of now."""
        self.attempt = attempt
        self.delegation = begun.delegation or Delegation(
            key=order.key, run_id=order.run_id, step=order.step, agent_id=agent.id, capability=capability.name
        )

    def next_attempt(self) -> None:
        """Take note that the call is made again."""
        self.attempt += 1
        self._again = self._again or bool(self._made)
        self._counts.clear()
        self._made.clear()

    async def release(self) -> None:
        """Remember that the agent has done with the call, and with its task: it is made anew, under another key."""
        self.delegation = replace(
            self.delegation, remote_task="", remote_context="", state=f"released:{releases_of(self.delegation) + 1}"
        )
        await self._notes.remember(self.delegation)

    async def report(self, update: Update) -> None:
        """Tell of an update; this is the call's `Report`."""
        match update:
            case TaskBound():
                await self._bind(update)
            case Progress():
                self._tell(EventKind.STEP_PROGRESS, text=update.text, done=update.done, total=update.total)
            case LogLine():
                self._tell(EventKind.STEP_LOG, text=update.text, level=update.level)
            case ArtifactChunk():
                made = named_artifact(self._order.step, update.artifact)
                # A call that is made again makes its artifacts again: they do not go on with what was told before.
                append = update.append and (not self._again or made.artifact_id in self._made)
                self._made.add(made.artifact_id)
                self._tell(EventKind.STEP_ARTIFACT, artifact=artifact_to_json(made), append=append, last=update.last)

    def converse(self, remote_context: str) -> None:
        """Take note of the agent's own id of the conversation, where it is not known from its task."""
        if remote_context and remote_context != self.delegation.remote_context:
            self.delegation = replace(self.delegation, remote_context=remote_context)
            self._notes.note(self.delegation)

    async def _bind(self, bound: TaskBound) -> None:
        if bound.remote_task == self.delegation.remote_task:
            return
        self.delegation = replace(
            self.delegation,
            remote_task=bound.remote_task,
            remote_context=bound.remote_context,
            state="bound" if not releases_of(self.delegation) else self.delegation.state,
        )
        if bound.ended:
            self._notes.note(self.delegation)
        else:
            await self._notes.remember(self.delegation)
        self._tell(EventKind.STEP_BOUND, agent=self.delegation.agent_id, remote_task=bound.remote_task)

    def _tell(self, kind: EventKind, **payload: Json) -> None:
        n = self._counts.get(kind, 0)
        self._counts[kind] = n + 1
        self._notes.tell(self._order, kind, self.attempt, n, **payload)


def releases_of(known: Delegation | None) -> int:
    """Return how often a call was given up to be sent anew: by a stopping hub, or when its agent had done with it."""
    if known is None or not known.state.startswith("released:"):
        return 0
    return int(known.state.partition(":")[2])
