"""What one call needs of an agent's interface, whichever binding it is of."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from interhub.adapters.content import Message

from .events import Event, MessageAnswer, TaskSnapshot
from .tolerance import TolerantReader

Take = Callable[[Event | None], Awaitable[bool]]
"""Takes an event, or None for one that was passed over; returns True when it has seen enough."""


class Peer(Protocol):
    """A2A's operations on one interface of one agent. Any number of requests at once.

    Each raises Fault where the agent answered with an error of the protocol, and AdapterError for anything else.
    """

    @property
    def reader(self) -> TolerantReader:
        """What reads the answers."""
        ...

    async def send(
        self, message: Message, *, return_immediately: bool, headers: Mapping[str, str]
    ) -> TaskSnapshot | MessageAnswer:
        """Send a message and return the task or message that answers it."""
        ...

    async def get_task(self, task_id: str, *, headers: Mapping[str, str]) -> TaskSnapshot:
        """Ask how a task stands."""
        ...

    async def cancel_task(self, task_id: str, *, headers: Mapping[str, str]) -> None:
        """Ask the agent to stop a task."""
        ...

    async def stream(self, message: Message, take: Take, *, headers: Mapping[str, str]) -> None:
        """Send a message and hand each event of its stream to `take`, until that has enough or the stream ends."""
        ...

    async def subscribe(self, task_id: str, take: Take, *, headers: Mapping[str, str]) -> None:
        """Hand each further event of a task to `take`, until that has enough or the stream ends."""
        ...
