"""The registry in the database."""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from anyio import to_thread
from sqlalchemy import Connection, Engine, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from interhub.agent_cards import card_from_json, card_to_json, endpoint_from_json, endpoint_to_json

from .agent import Agent, Health, HealthState
from .database import agents, reading, writing
from .errors import AgentExists, AgentNotFound
from .names import check_id, near_ids

P = ParamSpec("P")
T = TypeVar("T")


class SqlRegistry:
    """Keeps agents in the table `agents` of an engine that `open_database` returned.

    Every verb runs in a worker thread, so that a slow disk does not hold up the event loop, and raises DatabaseUnusable
    when the database fails.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add(self, agent: Agent) -> None:
        """Keep a new agent (see `Registry.add`)."""
        check_id(agent.id)
        await self._write(_add, agent)

    async def get(self, tenant: str, agent_id: str) -> Agent:
        """Return one agent (see `Registry.get`)."""
        return await self._read(_get, tenant, agent_id)

    async def list(self, tenant: str) -> tuple[Agent, ...]:
        """Return the tenant's agents, by id."""
        return await self._read(_list, tenant)

    async def all(self) -> tuple[Agent, ...]:
        """Return every tenant's agents, by tenant and id."""
        return await self._read(_list, None)

    async def replace(self, agent: Agent) -> None:
        """Keep a changed agent in the place of the one with its tenant and id (see `Registry.replace`)."""
        await self._write(_replace, agent)

    async def set_health(self, tenant: str, agent_id: str, health: Health) -> None:
        """Note what was last seen of an agent; an agent removed meanwhile is not an error."""
        await self._write(_set_health, tenant, agent_id, health)

    async def remove(self, tenant: str, agent_id: str) -> Agent:
        """Forget an agent and return what was known of it (see `Registry.remove`)."""
        return await self._write(_remove, tenant, agent_id)

    async def _read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        def run() -> T:
            with reading(self._engine) as connection:
                return work(connection, *args, **kwargs)

        return await to_thread.run_sync(run)

    async def _write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        def run() -> T:
            with writing(self._engine) as connection:
                return work(connection, *args, **kwargs)

        return await to_thread.run_sync(run)


def _add(connection: Connection, agent: Agent) -> None:
    try:
        connection.execute(insert(agents).values(tenant=agent.tenant, id=agent.id, **_columns(agent)))
    except IntegrityError as error:
        raise AgentExists(agent.id) from error


def _get(connection: Connection, tenant: str, agent_id: str) -> Agent:
    row = connection.execute(select(agents).where(agents.c.tenant == tenant, agents.c.id == agent_id)).one_or_none()
    if row is None:
        raise _not_found(connection, tenant, agent_id)
    return _agent(row)


def _list(connection: Connection, tenant: str | None) -> tuple[Agent, ...]:
    query = select(agents) if tenant is None else select(agents).where(agents.c.tenant == tenant)
    # Sorted here: a Postgres database may collate otherwise than by code point.
    rows = sorted(connection.execute(query), key=lambda row: (row.tenant, row.id))
    return tuple(_agent(row) for row in rows)


def _replace(connection: Connection, agent: Agent) -> None:
    changed = connection.execute(
        update(agents).where(agents.c.tenant == agent.tenant, agents.c.id == agent.id).values(**_columns(agent))
    )
    if changed.rowcount == 0:
        raise _not_found(connection, agent.tenant, agent.id)


def _set_health(connection: Connection, tenant: str, agent_id: str, health: Health) -> None:
    connection.execute(
        update(agents).where(agents.c.tenant == tenant, agents.c.id == agent_id).values(**_health_columns(health))
    )


def _remove(connection: Connection, tenant: str, agent_id: str) -> Agent:
    agent = _get(connection, tenant, agent_id)
    connection.execute(delete(agents).where(agents.c.tenant == tenant, agents.c.id == agent_id))
    return agent


def _not_found(connection: Connection, tenant: str, agent_id: str) -> AgentNotFound:
    known = connection.execute(select(agents.c.id).where(agents.c.tenant == tenant)).scalars().all()
    return AgentNotFound(agent_id, near_ids(agent_id, known))


def _columns(agent: Agent) -> dict[str, object]:
    return {
        "adapter": agent.adapter,
        "card": card_to_json(agent.card),
        "endpoint": endpoint_to_json(agent.endpoint),
        "digest": agent.digest,
        "created_at": agent.created_at,
        "updated_at": agent.updated_at,
        **_health_columns(agent.health),
    }


def _health_columns(health: Health) -> dict[str, object]:
    return {
        "health_state": health.state.value,
        "health_error": health.last_error,
        "health_checked_at": health.checked_at,
        "health_next_try_at": health.next_try_at,
    }


def _agent(row: Row[*tuple[object, ...]]) -> Agent:
    return Agent(
        id=row.id,
        tenant=row.tenant,
        adapter=row.adapter,
        card=card_from_json(row.card),
        endpoint=endpoint_from_json(row.endpoint),
        digest=row.digest,
        health=Health(
            state=HealthState(row.health_state),
            last_error=row.health_error,
            checked_at=row.health_checked_at,
            next_try_at=row.health_next_try_at,
        ),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
