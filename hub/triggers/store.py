"""Triggers, events and deliveries in the database. Every verb runs in a worker thread.

An event is taken in one transaction with all its deliveries, so that it is either known with everything that follows
from it, or not at all; its key is unique, so that of several hubs which see it one takes it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TypeVar, cast

import orjson
import structlog
from anyio import to_thread
from sqlalchemy import Connection, Engine, Row, and_, delete, or_, select, update

from interhub.adapters import Principal
from interhub.agent_cards import JsonObject, empty_object
from interhub.hub.bus import Bus
from interhub.hub.vault import Vault, VaultLocked
from interhub.registry.database import deliveries, insert_new, occurrences, reading, runs, triggers, writing

from .document import Trigger

log = structlog.get_logger()

T = TypeVar("T")

TOPIC = "trigger"
_LOOKED_AT = 100
"""Runs of a trigger that are looked at, the newest: one that goes on while as many others began is not seen."""
RETRY_S = 30.0
"""After which a delivery that is not done is tried again, by whichever hub sees it first."""


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A trigger, and on whose behalf it acts."""

    owner: Principal
    trigger: Trigger
    mark: str
    """How far its source was looked at: a moment, or a digest."""
    serial: int
    created_at: datetime

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.owner.tenant

    @property
    def id(self) -> str:
        """Its name, unique within the tenant."""
        return self.trigger.name


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """Something that happened outside the hub."""

    tenant: str
    source: str
    """A trigger's id; empty for what was given to the hub."""
    id: str
    """Unique within its source."""
    name: str
    data: JsonObject = field(default_factory=empty_object)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What one subscription gets of an event."""

    occurrence: Occurrence
    subscription: str
    """A trigger's id; empty for the steps that wait."""
    state: str = "open"
    """`open`, `done`, `failed`, or `skipped`: a run of the trigger's was still going on."""
    begun: tuple[str, ...] = ()
    """Ids of the runs that it began, or woke."""
    error: str = ""


class TriggerStore:
    """Keeps them."""

    def __init__(self, database: Engine, key: bytes, bus: Bus) -> None:
        """`key` seals secrets (`interhub.hub.vault`). `bus` tells other hubs that the triggers changed."""
        self._database = database
        self._key = key
        self._bus = bus

    # Triggers

    async def add(self, one: Registered, secret: str) -> bool:
        """Keep a trigger; False when there is one of its name."""

        def write(connection: Connection) -> bool:
            values = {
                "tenant": one.tenant,
                "id": one.id,
                "subject": one.owner.subject,
                "scopes": sorted(one.owner.scopes),
                "document": one.trigger.dump(),
                "sealed": self._vault.seal(secret.encode(), _place(one.tenant, one.id)) if secret else None,
                "mark": one.mark,
                "serial": one.serial,
                "created_at": one.created_at,
            }
            self._bus.tell(connection, TOPIC, [one.id])
            return insert_new(connection, triggers, values)

        return await self._write(write)

    async def remove(self, tenant: str, trigger_id: str) -> Registered | None:
        """Forget a trigger, and return it; None when there is none."""

        def write(connection: Connection) -> Registered | None:
            mine = and_(triggers.c.tenant == tenant, triggers.c.id == trigger_id)
            row = connection.execute(select(triggers).where(mine)).one_or_none()
            if row is None:
                return None
            connection.execute(delete(triggers).where(mine))
            self._bus.tell(connection, TOPIC, [trigger_id])
            return _registered(row)

        return await self._write(write)

    async def all(self, tenant: str = "") -> list[Registered]:
        """Return the triggers of a tenant, or of all, by id."""
        query = select(triggers).order_by(triggers.c.tenant, triggers.c.id)
        if tenant:
            query = query.where(triggers.c.tenant == tenant)
        return await self._read(lambda connection: [_registered(row) for row in connection.execute(query)])

    async def get(self, tenant: str, trigger_id: str) -> Registered | None:
        """Return one trigger."""
        query = select(triggers).where(triggers.c.tenant == tenant, triggers.c.id == trigger_id)
        return await self._read(
            lambda connection: None if (row := connection.execute(query).one_or_none()) is None else _registered(row)
        )

    async def secret(self, tenant: str, trigger_id: str) -> str:
        """Return a trigger's secret; empty where it has none, or it does not open."""
        query = select(triggers.c.sealed).where(triggers.c.tenant == tenant, triggers.c.id == trigger_id)
        sealed = await self._read(lambda connection: connection.execute(query).scalar())
        if sealed is None:
            return ""
        try:
            return self._vault.open(cast("bytes", sealed), _place(tenant, trigger_id)).decode()
        except VaultLocked as error:
            log.error("trigger_secret_unreadable", trigger=trigger_id, why=str(error))
            return ""

    async def pass_by(self, one: Registered, mark: str) -> None:
        """Note how far a schedule was looked at. Moments are written so that later ones are greater."""
        query = update(triggers).where(triggers.c.tenant == one.tenant, triggers.c.id == one.id, triggers.c.mark < mark)
        await self._write(lambda connection: connection.execute(query.values(mark=mark)))

    async def change(self, one: Registered, mark: str) -> int | None:
        """Note that a source has changed from `one.mark`, and count it; None where another hub was first."""
        query = update(triggers).where(
            triggers.c.tenant == one.tenant,
            triggers.c.id == one.id,
            triggers.c.mark == one.mark,
            triggers.c.serial == one.serial,
        )
        done = await self._write(
            lambda connection: connection.execute(query.values(mark=mark, serial=one.serial + 1)).rowcount
        )
        return one.serial + 1 if done == 1 else None

    # Events

    async def take(self, occurrence: Occurrence, subscriptions: Collection[str]) -> bool:
        """Keep an event and what is to be delivered of it; False when it was taken before."""
        now = datetime.now(UTC)

        def write(connection: Connection) -> bool:
            values: dict[str, object] = {
                "tenant": occurrence.tenant,
                "source": occurrence.source,
                "id": occurrence.id,
                "name": occurrence.name,
                "data": dict(occurrence.data),
                "at": occurrence.at,
                "taken_at": now,
            }
            if not insert_new(connection, occurrences, values):
                return False
            for subscription in subscriptions:
                delivery: dict[str, object] = {
                    "tenant": occurrence.tenant,
                    "subscription": subscription,
                    "source": occurrence.source,
                    "occurrence": occurrence.id,
                    "state": "open",
                    "begun": [],
                    "error": "",
                    "next_try_at": now + timedelta(seconds=RETRY_S),
                    "taken_at": now,
                }
                insert_new(connection, deliveries, delivery)
            return True

        return await self._write(write)

    async def due(self, before: datetime, limit: int = 100) -> list[Delivery]:
        """Return the deliveries that are not done and are due by then, oldest first."""
        query = _DELIVERIES.where(deliveries.c.state == "open", deliveries.c.next_try_at <= before)
        query = query.order_by(deliveries.c.next_try_at).limit(limit)
        return await self._read(lambda connection: [_delivery(row) for row in connection.execute(query)])

    async def deliveries_of(self, tenant: str, occurrence: Occurrence) -> list[Delivery]:
        """Return what became of an event."""
        query = _DELIVERIES.where(
            deliveries.c.tenant == tenant,
            deliveries.c.source == occurrence.source,
            deliveries.c.occurrence == occurrence.id,
        )
        return await self._read(
            lambda connection: [_delivery(row) for row in connection.execute(query.order_by(deliveries.c.subscription))]
        )

    async def last(self, tenant: str, trigger_ids: Sequence[str]) -> dict[str, Delivery]:
        """Return the newest delivery of each trigger that has had any."""
        found: dict[str, Delivery] = {}

        def read(connection: Connection) -> dict[str, Delivery]:
            for trigger_id in trigger_ids:
                query = _DELIVERIES.where(deliveries.c.tenant == tenant).where(
                    or_(
                        deliveries.c.subscription == trigger_id,
                        and_(deliveries.c.subscription == "", deliveries.c.source == trigger_id),
                    )
                )
                newest = query.order_by(deliveries.c.taken_at.desc(), deliveries.c.subscription.desc()).limit(1)
                if (row := connection.execute(newest).one_or_none()) is not None:
                    found[trigger_id] = _delivery(row)
            return found

        return await self._read(read)

    async def delivered(self, delivery: Delivery, *, begun: Sequence[str]) -> None:
        """Note that a delivery is done."""
        await self._settle(delivery, state="done", begun=list(begun), error="", next_try_at=None)

    async def under_way(self, delivery: Delivery) -> str:
        """Return the run that an earlier event of the same trigger began, or is about to begin, and that goes on.

        Empty where there is none. What is about to be begun has no id yet: `a run`.
        """
        mine = and_(
            deliveries.c.tenant == delivery.occurrence.tenant, deliveries.c.subscription == delivery.subscription
        )
        this = and_(
            mine,
            deliveries.c.source == delivery.occurrence.source,
            deliveries.c.occurrence == delivery.occurrence.id,
        )

        def read(connection: Connection) -> str:
            taken = connection.execute(select(deliveries.c.taken_at).where(this)).scalar_one()
            earlier = or_(
                deliveries.c.taken_at < taken,
                and_(deliveries.c.taken_at == taken, deliveries.c.occurrence < delivery.occurrence.id),
            )
            query = select(deliveries.c.state, deliveries.c.begun).where(mine, earlier)
            query = query.where(deliveries.c.state.in_(("open", "done"))).order_by(deliveries.c.taken_at.desc())
            for row in connection.execute(query.limit(_LOOKED_AT)):
                if row.state == "open":
                    return "a run"
                going = select(runs.c.id).where(runs.c.id.in_(row.begun), runs.c.ended_at.is_(None))
                if (run_id := connection.execute(going).scalar()) is not None:
                    return str(run_id)
            return ""

        return await self._read(read)

    async def skipped(self, delivery: Delivery, why: str) -> None:
        """Note that nothing is to come of a delivery."""
        await self._settle(delivery, state="skipped", error=why, next_try_at=None)

    async def failed(self, delivery: Delivery, why: str, *, again: bool) -> None:
        """Note why a delivery failed; `again`: it is tried again."""
        later = datetime.now(UTC) + timedelta(seconds=RETRY_S) if again else None
        await self._settle(delivery, state="open" if again else "failed", error=why, next_try_at=later)

    async def _settle(self, delivery: Delivery, **values: object) -> None:
        occurrence = delivery.occurrence
        query = update(deliveries).where(
            deliveries.c.tenant == occurrence.tenant,
            deliveries.c.subscription == delivery.subscription,
            deliveries.c.source == occurrence.source,
            deliveries.c.occurrence == occurrence.id,
            deliveries.c.state == "open",
        )
        await self._write(lambda connection: connection.execute(query.values(**values)))

    # Inside

    async def _read(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with reading(self._database) as connection:
                return work(connection)

        return await to_thread.run_sync(run)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with writing(self._database) as connection:
                return work(connection)

        return await to_thread.run_sync(run)

    @cached_property
    def _vault(self) -> Vault:
        return Vault(self._key)


_DELIVERIES = select(deliveries, occurrences.c.name, occurrences.c.data, occurrences.c.at).join(
    occurrences,
    and_(
        occurrences.c.tenant == deliveries.c.tenant,
        occurrences.c.source == deliveries.c.source,
        occurrences.c.id == deliveries.c.occurrence,
    ),
)


def _registered(row: Row[tuple[object, ...]]) -> Registered:
    return Registered(
        owner=Principal(subject=row.subject, tenant=row.tenant, scopes=frozenset(row.scopes)),
        trigger=Trigger.model_validate(row.document),
        mark=row.mark,
        serial=row.serial,
        created_at=row.created_at,
    )


def _delivery(row: Row[*tuple[object, ...]]) -> Delivery:
    return Delivery(
        occurrence=Occurrence(
            tenant=row.tenant, source=row.source, id=row.occurrence, name=row.name, data=row.data or {}, at=row.at
        ),
        subscription=row.subscription,
        state=row.state,
        begun=tuple(row.begun),
        error=row.error,
    )


def _place(tenant: str, trigger_id: str) -> bytes:
    """What was sealed for one trigger opens for no other."""
    return orjson.dumps(["trigger", tenant, trigger_id])
