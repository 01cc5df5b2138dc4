"""Webhooks in the database; what proves us to them is sealed."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import TypeVar

import orjson
import structlog
from anyio import to_thread
from sqlalchemy import ColumnElement, Connection, Delete, Engine, Row, delete, func, select, update

from interhub.hub.vault import Vault, VaultLocked
from interhub.registry.database import insert_new, push_configs, reading, writing

from .config import Destination, PushConfig, PushState

log = structlog.get_logger()

T = TypeVar("T")


class PushStore:
    """Keeps webhooks. Every verb runs in a worker thread, and raises DatabaseUnusable when the database fails."""

    def __init__(self, database: Engine, key: bytes) -> None:
        """`key` seals what is secret (`interhub.hub.vault`)."""
        self._database = database
        self._key = key

    async def put(self, config: PushConfig, *, most: int) -> bool:
        """Keep a webhook, in the place of one of its run with its id; False when the run has `most` others."""

        def write(connection: Connection) -> bool:
            others = select(func.count()).where(push_configs.c.run_id == config.run_id, push_configs.c.id != config.id)
            if (connection.execute(others).scalar() or 0) >= most:
                return False
            connection.execute(_which(config.run_id, config.id))
            return insert_new(connection, push_configs, self._values(config))

        return await self._write(write)

    async def get(self, run_id: str, config_id: str) -> PushConfig | None:
        """Return a webhook of a run."""
        found = await self._read(push_configs.c.run_id == run_id, push_configs.c.id == config_id)
        return found[0] if found else None

    async def of_run(self, run_id: str) -> list[PushConfig]:
        """Return a run's webhooks, by id."""
        return sorted(await self._read(push_configs.c.run_id == run_id), key=lambda config: config.id)

    async def active(self) -> list[PushConfig]:
        """Return the webhooks that are not done with: for start-up."""
        return await self._read(push_configs.c.state == PushState.ACTIVE.value)

    async def remove(self, run_id: str, config_id: str) -> None:
        """Forget a webhook; that there is none is no error."""
        await self._write(lambda connection: connection.execute(_which(run_id, config_id)))

    async def told(self, config: PushConfig, *, sent: int, state: PushState = PushState.ACTIVE) -> bool:
        """Note how far a webhook has been told; False when it is no longer there as it was."""
        return await self._change(config, sent=sent, state=state.value, tries=0, next_try_at=None, last_error="")

    async def failed(self, config: PushConfig, *, tries: int, next_try_at: datetime, error: str) -> None:
        """Note a failed attempt, and when the next one is due."""
        await self._change(config, tries=tries, next_try_at=next_try_at, last_error=error)

    async def given_up(self, config: PushConfig, *, tries: int, error: str) -> None:
        """Note that a webhook is told nothing any more."""
        state = PushState.GIVEN_UP.value
        await self._change(config, state=state, tries=tries, next_try_at=None, last_error=error)

    async def _change(self, config: PushConfig, **values: object) -> bool:
        # One that was put in its place meanwhile has another moment of creation, and is not touched.
        query = (
            update(push_configs)
            .where(
                push_configs.c.run_id == config.run_id,
                push_configs.c.id == config.id,
                push_configs.c.created_at == config.created_at,
            )
            .values(updated_at=datetime.now(UTC), **values)
        )
        return await self._write(lambda connection: connection.execute(query).rowcount == 1)

    async def _read(self, *conditions: ColumnElement[bool]) -> list[PushConfig]:
        def read() -> list[PushConfig]:
            query = select(push_configs).where(*conditions)
            with reading(self._database) as connection:
                return [config for row in connection.execute(query) if (config := self._config(row)) is not None]

        return await to_thread.run_sync(read)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with writing(self._database) as connection:
                return work(connection)

        return await to_thread.run_sync(run)

    @cached_property
    def _vault(self) -> Vault:
        return Vault(self._key)

    def _values(self, config: PushConfig) -> dict[str, object]:
        destination = config.destination
        secret = {
            "url": destination.url,
            "token": destination.token,
            "scheme": destination.scheme,
            "credentials": destination.credentials,
        }
        return {
            "run_id": config.run_id,
            "id": config.id,
            "tenant": config.tenant,
            "subject": config.subject,
            "version": config.version,
            "sealed": self._vault.seal(orjson.dumps(secret), _bound_to(config.run_id, config.id)),
            "sent": config.sent,
            "state": config.state.value,
            "tries": config.tries,
            "next_try_at": config.next_try_at,
            "last_error": config.last_error,
            "created_at": config.created_at,
            "updated_at": config.created_at,
        }

    def _config(self, row: Row[*tuple[object, ...]]) -> PushConfig | None:
        try:
            secret: dict[str, str] = orjson.loads(self._vault.open(row.sealed, _bound_to(row.run_id, row.id)))
        except VaultLocked as error:
            log.error("push_config_unreadable", run=row.run_id, config=row.id, why=str(error))
            return None
        return PushConfig(
            run_id=row.run_id,
            id=row.id,
            tenant=row.tenant,
            subject=row.subject,
            destination=Destination(**secret),
            version=row.version,
            sent=row.sent,
            state=PushState(row.state),
            tries=row.tries,
            next_try_at=row.next_try_at,
            last_error=row.last_error,
            created_at=row.created_at,
        )


def _which(run_id: str, config_id: str) -> Delete:
    return delete(push_configs).where(push_configs.c.run_id == run_id, push_configs.c.id == config_id)


def _bound_to(run_id: str, config_id: str) -> bytes:
    """What was sealed for one webhook opens for no other."""
    return orjson.dumps(["push", run_id, config_id])
