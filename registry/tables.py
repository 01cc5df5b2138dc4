"""Every table of `interhub.db`: the registry's agents, and what the hub keeps about runs.

They share one `metadata` and one history of migrations, so that one file (or one Postgres database) holds all of the
hub's state. The registry reads and writes `agents` only; the others belong to the hub.
"""

import json
import re
from datetime import UTC, datetime

import orjson
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator


class Timestamp(TypeDecorator[datetime]):
    """A moment, to the microsecond: aware going in, aware and in UTC coming out, also where SQLite keeps it as text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive moment, and turn others to UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a moment needs its time zone; {value} has none")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Say that it is UTC where the database did not."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class ForeignText(TypeDecorator[str]):
    """A text that others wrote, such as a goal, an agent's error, or the id that somebody asks for.

    PostgreSQL takes no NUL in a text, and neither database takes half of a surrogate pair. Both become U+FFFD, rather
    than an error in whatever was about to be noted.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Put U+FFFD in the place of what a database cannot keep."""
        if value is None:
            return None
        return keepable(value)


def keepable(value: str) -> str:
    """Return a text with U+FFFD in the place of what a database cannot keep."""
    return value if value.isascii() and "\x00" not in value else _UNKEEPABLE.sub("\ufffd", value)


_UNKEEPABLE = re.compile("[\x00\ud800-\udfff]")


def dump_json(value: object) -> str:
    """Write the value of a JSON column: fast where orjson can, and else as Python can (huge integers, surrogates)."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)


def load_json(text: str | bytes) -> object:
    """Read the value of a JSON column, by the same two ways."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_BIG_KEY = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in a column declared INTEGER; it is 64 bits wide there as well."""

_JSON = JSON(none_as_null=True)

agents = Table(
    "agents",
    metadata,
    Column("tenant", ForeignText, primary_key=True),
    Column("id", ForeignText, primary_key=True),
    Column("adapter", Text, nullable=False),
    Column("card", _JSON, nullable=False),
    Column("endpoint", _JSON, nullable=False),
    Column("digest", Text, nullable=False),
    Column("health_state", Text, nullable=False),
    Column("health_error", ForeignText, nullable=False),
    Column("health_checked_at", Timestamp),
    Column("health_next_try_at", Timestamp),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
)
"""Who exists."""

runs = Table(
    "runs",
    metadata,
    Column("id", ForeignText, primary_key=True),
    Column("tenant", ForeignText, nullable=False),
    Column("subject", ForeignText, nullable=False),
    Column("context_id", ForeignText, nullable=False),
    Column("parent_id", Text),
    Column("root_id", Text, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("goal", ForeignText, nullable=False),
    Column("spec", _JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", _JSON),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    Column("generation", BigInteger, nullable=False),
    Index(None, "tenant", "created_at"),
    Index(None, "tenant", "context_id"),
    Index(None, "state"),
    Index(None, "root_id"),
    Index(None, "parent_id"),
    Index(None, "ended_at"),
)
"""Durable executions, as they stand; `generation` is the `seq` of the last event."""

events = Table(
    "events",
    metadata,
    Column("run_id", ForeignText, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("step", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("payload", _JSON, nullable=False),
    UniqueConstraint("run_id", "step", "attempt", "kind", "n"),
)
"""The journal. A replay that appends an event again meets the unique constraint. The key serves reading by run."""

delegations = Table(
    "delegations",
    metadata,
    Column("key", ForeignText, primary_key=True),
    Column("run_id", ForeignText, nullable=False),
    Column("step", Text, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("capability", Text, nullable=False),
    Column("remote_task", ForeignText, nullable=False),
    Column("remote_context", ForeignText, nullable=False),
    Column("state", Text, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Index(None, "run_id"),
)
"""Which task of which agent a call became, by idempotency key: asked for before a call is sent again."""

questions = Table(
    "questions",
    metadata,
    Column("id", ForeignText, primary_key=True),
    Column("run_id", ForeignText, nullable=False),
    Column("step", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("asked", _JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("answer", _JSON),
    Column("answered_by", Text),
    Column("digest", Text, nullable=False),
    Column("asked_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp),
    Index(None, "run_id"),
    Index(None, "state"),
)
"""What agents asked people, and what these said."""

waits = Table(
    "waits",
    metadata,
    Column("id", ForeignText, primary_key=True),
    Column("run_id", ForeignText, nullable=False),
    Column("step", Text, nullable=False),
    Column("workflow", ForeignText, nullable=False),
    Column("tenant", ForeignText, nullable=False),
    Column("event", ForeignText, nullable=False),
    Column("match", _JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("delivered", _JSON),
    Column("since", Timestamp, nullable=False),
    Column("expires_at", Timestamp),
    Index(None, "run_id"),
    Index(None, "tenant", "event", "state"),
)
"""Events that steps of runs wait for, and the one that each of them got."""

pauses = Table(
    "pauses",
    metadata,
    Column("run_id", ForeignText, primary_key=True),
    Column("by", ForeignText, nullable=False),
    Column("since", Timestamp, nullable=False),
)
"""Runs that begin no step until they are resumed."""

triggers = Table(
    "triggers",
    metadata,
    Column("tenant", ForeignText, primary_key=True),
    Column("id", ForeignText, primary_key=True),
    Column("subject", ForeignText, nullable=False),
    Column("scopes", _JSON, nullable=False),
    Column("document", _JSON, nullable=False),
    Column("sealed", LargeBinary),
    Column("mark", ForeignText, nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)
"""What starts or wakes runs, on whose behalf; `mark` is how far its source was looked at, `serial` counts changes."""

occurrences = Table(
    "occurrences",
    metadata,
    Column("tenant", ForeignText, primary_key=True),
    Column("source", ForeignText, primary_key=True),
    Column("id", ForeignText, primary_key=True),
    Column("name", ForeignText, nullable=False),
    Column("data", _JSON),
    Column("at", Timestamp, nullable=False),
    Column("taken_at", Timestamp, nullable=False),
    Index(None, "tenant", "name", "taken_at"),
    Index(None, "taken_at"),
)
"""Events from outside, each once: `id` is unique within its source, a trigger or the API."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("tenant", ForeignText, primary_key=True),
    Column("subscription", ForeignText, primary_key=True),
    Column("source", ForeignText, primary_key=True),
    Column("occurrence", ForeignText, primary_key=True),
    Column("state", Text, nullable=False),
    Column("begun", _JSON, nullable=False),
    Column("error", ForeignText, nullable=False),
    Column("next_try_at", Timestamp),
    Column("taken_at", Timestamp, nullable=False),
    Index(None, "state", "next_try_at"),
    Index(None, "taken_at"),
)
"""What each subscription gets of each event: a run of its own, or, where it is empty, the runs that waited."""

audit = Table(
    "audit",
    metadata,
    Column("id", _BIG_KEY, primary_key=True, autoincrement=True),
    Column("at", Timestamp, nullable=False),
    Column("tenant", ForeignText, nullable=False),
    Column("subject", ForeignText, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", ForeignText, nullable=False),
    Column("decision", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("duration_ms", Double, nullable=False),
    Column("detail", _JSON, nullable=False),
    sqlite_autoincrement=True,  # an id is never given twice, also after old records were deleted
)
"""One record for each decision and call. In the order of time but for a moment, so that no index says what `id` does:
two of them cost three times as much as the records, of which each call writes one."""

blobs = Table(
    "blobs",
    metadata,
    Column("id", ForeignText, primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Index(None, "created_at"),
)
"""Large payloads, referred to by id."""

blob_uses = Table(
    "blob_uses",
    metadata,
    Column("run_id", ForeignText, primary_key=True),
    Column("blob_id", ForeignText, primary_key=True),
    Index(None, "blob_id"),
)
"""Which runs' results hold a large payload: it is kept as long as one of them is."""

replicas = Table(
    "replicas",
    metadata,
    Column("executor_id", Text, primary_key=True),
    Column("home", ForeignText, nullable=False),
    Column("url", ForeignText, nullable=False),
    Column("version", Text, nullable=False),
    Column("joined_at", Timestamp, nullable=False),
    Column("beat", Timestamp, nullable=False),
    Column("ttl_s", Double, nullable=False),
    Column("lost", Boolean, nullable=False),
)
"""The hubs that share this database, each with its lease. On PostgreSQL only."""

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)
"""Keys that every replica needs, so that one opens what another sealed. On PostgreSQL only."""

push_configs = Table(
    "push_configs",
    metadata,
    Column("run_id", ForeignText, primary_key=True),
    Column("id", ForeignText, primary_key=True),
    Column("tenant", ForeignText, nullable=False),
    Column("subject", ForeignText, nullable=False),
    Column("version", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("sent", BigInteger),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_try_at", Timestamp),
    Column("last_error", ForeignText, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Index(None, "state"),
)
"""Webhooks of runs, and how far each has been told; address and credentials are sealed."""

tree_accounts = Table(
    "tree_accounts",
    metadata,
    Column("key", ForeignText, primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
)
"""What was used below calls of agents that call the hub back, by the calls' keys."""
