"""Tells agents that a task is wanted no more, where no call of ours is under way to tell them: one that asks."""

import asyncio
from collections.abc import Callable, Iterable

import anyio
import anyio.to_thread
import sqlalchemy as sa
import structlog
from sqlalchemy import Connection

from interhub.adapters import AdapterError, Principal
from interhub.hub.dispatch import Dispatcher
from interhub.registry import AgentNotFound, DatabaseError, Registry
from interhub.registry.database import reading

from . import records
from .records import Delegation, RunRecord

log = structlog.get_logger()


class Recalls:
    """Recalls what agents were given. That one knows no such task any more, or has ended it, is no error."""

    def __init__(self, *, registry: Registry, dispatcher: Dispatcher, database: sa.Engine, within_s: float) -> None:
        """`within_s` is how long an agent may take to take note."""
        self._registry = registry
        self._dispatcher = dispatcher
        self._database = database
        self._within_s = within_s
        self._under_way: set[asyncio.Task[None]] = set()

    async def of_run(self, record: RunRecord, *, but: Iterable[str] = ()) -> None:
        """Recall all that agents were given for a run, `but` for these steps; returns when they have taken note."""
        ended = frozenset(but)

        def look(connection: Connection) -> list[Delegation]:
            return [one for one in records.delegations_of(connection, [record.id]) if one.step not in ended]

        await self._recall(Principal(subject=record.subject, tenant=record.tenant), look)

    def of_call(self, principal: Principal, key: str) -> None:
        """Recall what an agent was given with a call, without waiting; `key` is the call's idempotency key."""

        def look(connection: Connection) -> list[Delegation]:
            known = records.find_delegation(connection, key)
            return [known] if known is not None else []

        task = asyncio.ensure_future(self._recall(principal, look))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def stop(self) -> None:
        """Return when nothing is under way."""
        if self._under_way:
            await asyncio.wait(list(self._under_way))

    async def _recall(self, principal: Principal, look: Callable[[Connection], list[Delegation]]) -> None:
        def read() -> list[Delegation]:
            with reading(self._database) as connection:
                return look(connection)

        try:
            found = await anyio.to_thread.run_sync(read)
        except DatabaseError as error:
            log.warning("remote_tasks_not_canceled", principal=principal.key, why=str(error))
            return
        # The calls before and after an answer are two, and of one task.
        bound = {(one.agent_id, one.remote_task): one for one in found if one.remote_task}
        async with anyio.create_task_group() as tasks:
            for one in bound.values():
                tasks.start_soon(self._tell, principal, one)

    async def _tell(self, principal: Principal, one: Delegation) -> None:
        try:
            agent = await self._registry.get(principal.tenant, one.agent_id)
            with anyio.move_on_after(self._within_s):
                connection = await self._dispatcher.connection(agent, principal)
                await connection.cancel(one.remote_task)
        except (AdapterError, AgentNotFound, DatabaseError) as error:
            log.warning("remote_task_not_canceled", run=one.run_id, agent=one.agent_id, why=str(error))
        except Exception:  # an adapter's fault must not keep the run from being cancelled
            log.exception("remote_task_not_canceled", run=one.run_id, agent=one.agent_id)
