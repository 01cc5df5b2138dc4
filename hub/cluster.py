"""What makes a hub one of several on a PostgreSQL database: its name there, its lease, its bus, and the shared keys.

On SQLite there is nothing of it: the hub that holds the data directory is alone.
"""

import secrets as random
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from anyio import to_thread
from sqlalchemy import Engine, select

from interhub.agent_cards import JsonObject
from interhub.registry.database import insert_new, secrets, writing

from .bus import PostgresBus
from .datadir import DataDir
from .settings import Replicas
from .supervisor.membership import Membership, Replica
from .version import VERSION

STATE_KEY = "state"
"""Seals what clients keep for us between two requests: whichever replica the second one reaches opens it."""


@dataclass(frozen=True)
class Cluster:
    """This hub as one of several. Not joined yet."""

    membership: Membership
    bus: PostgresBus

    @property
    def executor_id(self) -> str:
        """Name of this process in the engine."""
        return self.membership.replica.executor_id

    def problems(self) -> Mapping[str, str]:
        """Return why this replica should be given no requests now, by part."""
        found: dict[str, str] = {}
        if not self.membership.is_steady():
            found["lease"] = f"the lease could not be renewed for {self.membership.ttl_s:g} s; is the database there?"
        if not self.bus.listening:
            found["bus"] = "what other replicas tell is not heard; is the database there?"
        return found

    async def members(self) -> list[JsonObject]:
        """Return the replicas of this database, for probes: their names, not where they are.

        Raises:
            DatabaseUnusable: it cannot be read.
        """
        return [
            {
                "replica": member.replica.executor_id,
                "version": member.replica.version,
                "joined_at": member.joined_at.isoformat(),
                "seen_s_ago": round(max(0.0, member.age_s), 1),
                "self": member.replica.executor_id == self.executor_id,
            }
            for member in await to_thread.run_sync(self.membership.members)
            if not member.lost
        ]


def cluster(database: Engine, home: DataDir, settings: Replicas, url: str, executor_id: str) -> Cluster | None:
    """Return this hub as one of several, named `executor_id`; None where the database is a file, and it is alone."""
    if database.dialect.name != "postgresql":
        return None
    replica = Replica(
        executor_id=executor_id, home=f"{socket.gethostname()}/{home.replica_name()}", url=url, version=VERSION
    )
    membership = Membership(database, replica, ttl_s=settings.lease_s, beat_s=settings.heartbeat_s)
    return Cluster(membership, PostgresBus(database, replica.executor_id))


def shared_key(database: Engine, name: str, make: Callable[[], bytes] = lambda: random.token_bytes(32)) -> bytes:
    """Return a key that every replica has, made by the first one that asks. Blocks shortly.

    Raises:
        DatabaseUnusable: it cannot be read or written.
    """
    with writing(database) as connection:
        insert_new(connection, secrets, {"name": name, "value": make(), "created_at": datetime.now(UTC)})
        return cast("bytes", connection.execute(select(secrets.c.value).where(secrets.c.name == name)).scalar_one())
