"""Which conversation of an agent's a context of ours is: the agent's own ids of them, for the calls that follow."""

from collections import OrderedDict
from datetime import datetime
from typing import TypeAlias

import anyio.to_thread
import sqlalchemy as sa

from interhub.registry import Agent
from interhub.registry.database import reading

from . import records
from .order import Order

KEPT = 4096

_Key: TypeAlias = tuple[str, str, datetime, str]
"""Principal, agent and when it was added, and context: another's, or another agent's of that id, is another."""


class Conversations:
    """The conversations of all principals. They last as long as the delegations that they were begun in."""

    def __init__(self, database: sa.Engine) -> None:
        self._database = database
        self._known: OrderedDict[_Key, str] = OrderedDict()

    async def of(self, order: Order, agent: Agent) -> str:
        """Return the agent's own id of the conversation that a step belongs to; empty where it is new to the agent.

        Raises:
            DatabaseUnusable: it cannot be read.
        """
        key = _key(order, agent)
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return known
        if order.new_context or not order.context_id:
            return ""
        found = await anyio.to_thread.run_sync(self._find, order, agent)
        if found:
            self._keep(key, found)
        return found

    def take(self, order: Order, agent: Agent, remote_context: str, *, before: str) -> None:
        """Keep the agent's id of a conversation, which was `before` when the call was made.

        Of several calls that begin it together the first stays; an agent that goes on under another id is followed.
        """
        key = _key(order, agent)
        if remote_context and order.context_id and (before or key not in self._known):
            self._keep(key, remote_context)

    def _find(self, order: Order, agent: Agent) -> str:
        with reading(self._database) as connection:
            return records.remote_context(
                connection,
                tenant=order.principal.tenant,
                subject=order.principal.subject,
                context_id=order.context_id,
                agent_id=agent.id,
                since=agent.created_at,
            )

    def _keep(self, key: _Key, remote_context: str) -> None:
        self._known[key] = remote_context
        self._known.move_to_end(key)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)


def _key(order: Order, agent: Agent) -> _Key:
    return order.principal.key, agent.id, agent.created_at, order.context_id
