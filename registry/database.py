"""The one database: opened, checked, and brought to the newest revision of its tables.

A SQLite file by default (write-ahead log, so that readers never wait for a writer), or PostgreSQL through psycopg.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from time import monotonic, sleep

from sqlalchemy import Connection, Engine, Table, TextClause, bindparam, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from .errors import DatabaseAway, DatabaseTooNew, DatabaseUnusable
from .tables import (
    agents,
    audit,
    blob_uses,
    blobs,
    delegations,
    deliveries,
    dump_json,
    events,
    keepable,
    load_json,
    metadata,
    occurrences,
    pauses,
    push_configs,
    questions,
    replicas,
    runs,
    secrets,
    tree_accounts,
    triggers,
    waits,
)

__all__ = [
    "BUSY_TIMEOUT_MS",
    "CONNECT_TIMEOUT_S",
    "IDLE_IN_TRANSACTION_S",
    "RECONNECT_S",
    "agents",
    "audit",
    "blob_uses",
    "blobs",
    "database_errors",
    "delegations",
    "deliveries",
    "dump_json",
    "events",
    "head_revision",
    "insert_new",
    "insert_or_replace",
    "keepable",
    "metadata",
    "occurrences",
    "open_database",
    "pauses",
    "postgres_connector",
    "push_configs",
    "questions",
    "reading",
    "replicas",
    "runs",
    "secrets",
    "stored_revision",
    "tree_accounts",
    "triggers",
    "waits",
    "writing",
]

BUSY_TIMEOUT_MS = 10_000
"""How long a writer waits for another (another process included) before SQLite says "database is locked"."""

CONNECT_TIMEOUT_S = 10
"""How long a PostgreSQL server may take to accept a connection, where the URL has no `connect_timeout`."""

RECONNECT_S = 10.0
"""How long a PostgreSQL server that was reached before is tried again when it does not answer."""

MIGRATIONS = Path(__file__).parent / "migrations"

IDLE_IN_TRANSACTION_S = 5.0
"""How long a PostgreSQL transaction may stand still: a process that is frozen holds no lock for longer."""

_MIGRATION_LOCK = 0x696E7465726875
"""Key of the Postgres advisory lock under which replicas migrate one after the other ("interhu")."""

_WRITES = "interhub_writes"


def open_database(url: str, *, name: str = "interhub") -> Engine:
    """Open the database of a URL, and create or migrate its tables where needed.

    `url` is `sqlite:////absolute/path.db` or `postgresql://user:password@host/name`. A SQLite file is created readable
    by its owner only, and made so when it is not. Dispose of the engine when done. A PostgreSQL server knows its
    connections by `name`.

    Raises:
        DatabaseUnusable: it cannot be reached, opened or written, or is no database; the message says why.
        DatabaseTooNew: a newer interhub has migrated it.
    """
    where, parsed = _address(url)
    engine = _sqlite(parsed, where) if parsed.get_backend_name() == "sqlite" else _postgres(parsed, name)
    try:
        with database_errors(engine):
            _bring_to_head(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def writing(engine: Engine) -> Generator[Connection]:
    """Begin a transaction that writes, commit it at the end, or roll it back when an exception passes.

    On SQLite it takes the write lock at once (BEGIN IMMEDIATE) and waits for it. A transaction that reads first and
    writes then fails without waiting when another has written in between; use this for those, and for all writes.

    Raises:
        DatabaseUnusable: the database cannot be written.
    """
    with (
        database_errors(engine),
        engine.connect().execution_options(**{_WRITES: True}) as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def reading(engine: Engine) -> Generator[Connection]:
    """Open a connection that reads.

    Raises:
        DatabaseUnusable: the database cannot be read.
    """
    with database_errors(engine), engine.connect() as connection:
        yield connection


@contextmanager
def database_errors(engine: Engine) -> Generator[None]:
    """Raise what the database's driver says about its condition as DatabaseUnusable, with the place and the reason.

    Errors of the statement itself (a constraint, a type) pass as they are.
    """
    try:
        yield
    except DBAPIError as error:
        why = _condition(error, engine)
        if why is None:
            raise
        kind = DatabaseAway if _is_away(error, engine) else DatabaseUnusable
        raise kind(_where(engine.url), why) from error
    except PoolTimeout as error:
        raise DatabaseAway(_where(engine.url), "its connections are all in use") from error


def insert_new(connection: Connection, table: Table, values: Mapping[str, object]) -> bool:
    """Insert a row; False when a unique constraint says that it is there already, and nothing was changed."""
    # Without the option psycopg's count is dropped for an INSERT, and -1 given.
    options = {"preserve_rowcount": True}
    statement = _insert(table, tuple(values), None)
    return connection.execute(statement, dict(values), execution_options=options).rowcount == 1


def insert_or_replace(connection: Connection, table: Table, values: Mapping[str, object], *, key: str) -> None:
    """Insert a row, or put its values in the place of those of the row with the same key."""
    connection.execute(_insert(table, tuple(values), key), dict(values))


@lru_cache(maxsize=256)
def _insert(table: Table, names: tuple[str, ...], key: str | None) -> TextClause:
    """Write an INSERT that minds what is there. SQLAlchemy compiles its own anew each time, for a quarter of a ms."""
    columns, marks = ", ".join(f'"{name}"' for name in names), ", ".join(f":{name}" for name in names)
    replaced = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name != key)
    known = "DO NOTHING" if key is None else f'("{key}") DO UPDATE SET {replaced}'
    statement = text(f'INSERT INTO "{table.name}" ({columns}) VALUES ({marks}) ON CONFLICT {known}')  # noqa: S608  # our own names
    return statement.bindparams(*(bindparam(name, type_=table.c[name].type) for name in names))


def head_revision() -> str:
    """Return the newest revision of the tables that this version knows."""
    return max(_revisions())


def stored_revision(connection: Connection) -> str | None:
    """Return the revision that a database's tables are at; None when it has none of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _revisions() -> frozenset[str]:
    """Revisions by the names of their files, `0001_what.py`: Alembic's own list would cost its import."""
    return frozenset(
        name.group(1)
        for file in (MIGRATIONS / "versions").iterdir()
        if (name := re.match(r"(\d{4})_\w+\.py$", file.name))
    )


def _bring_to_head(engine: Engine) -> None:
    with engine.connect() as connection:
        if _at_head(engine, connection):
            if engine.dialect.name == "sqlite":
                _prove_writable(engine)
            return
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        if not _at_head(engine, connection):  # another process may have been first
            if stored_revision(connection) is None:
                _create(connection)
            else:
                _migrate(connection)


def _at_head(engine: Engine, connection: Connection) -> bool:
    revision = stored_revision(connection)
    if revision is None:
        return False
    if revision not in _revisions():
        raise DatabaseTooNew(_where(engine.url), revision)
    return revision == head_revision()


def _prove_writable(engine: Engine) -> None:
    """Begin a change of nothing: on a read-only file SQLite refuses that, while it lets BEGIN IMMEDIATE pass."""
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = version_num WHERE 0"))


def _create(connection: Connection) -> None:
    """Make the tables of a new database as they are now, which is what its migrations come to; it costs no Alembic."""
    metadata.create_all(connection, checkfirst=False)
    name = "version_num VARCHAR(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY"
    connection.execute(text(f"CREATE TABLE IF NOT EXISTS alembic_version ({name})"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": head_revision()})


def _migrate(connection: Connection) -> None:
    # Imported late: Alembic takes 0.2 to 0.4 s, and a database at its newest revision does not need it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _address(url: str) -> tuple[str, URL]:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        # The part before the last @ may hold a password, however the rest is written.
        shown = repr(f"…{url[url.rindex('@') :]}" if "@" in url else url)
        raise DatabaseUnusable(shown, "it is no database URL; write sqlite:////path or postgresql://…") from error
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    where = _where(parsed)
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise DatabaseUnusable(where, "only sqlite and postgresql are known")
    if parsed.get_backend_name() == "sqlite" and (not parsed.database or ":memory:" in parsed.database):
        raise DatabaseUnusable(where, "a database in memory cannot be shared by threads; give a file")
    return where, parsed


def _where(url: URL) -> str:
    """Name the database for people: a file's path, or the URL without its password."""
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    return url.render_as_string(hide_password=True)


def _sqlite(url: URL, where: str) -> Engine:
    if url.query.get("uri") != "true":
        _prepare_file(Path(url.database or ""), where)
    engine = create_engine(
        url,
        json_serializer=dump_json,
        json_deserializer=load_json,
        # Threads of the hub (40 of anyio's, and the engine's) must not wait for one another for want of a handle.
        pool_size=8,
        max_overflow=64,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:  # pyright: ignore[reportUnusedFunction]
        cursor = connection.cursor()
        try:
            _write_ahead(cursor)
            cursor.execute("PRAGMA synchronous=NORMAL")
            cursor.execute("PRAGMA foreign_keys=ON")
        finally:
            cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        # `isolation_level=None` leaves transactions to us: Python's sqlite3 would commit before DDL, so that a
        # migration that is cut off would leave half of its tables.
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Turn the write-ahead log on, which the file then remembers.

    Two connections that do so to a new file at once would wait for each other, so SQLite tells one that the database
    is locked without waiting at all (https://sqlite.org/c3ref/busy_handler.html); we wait here.
    """
    give_up = monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or monotonic() > give_up:
                raise
            sleep(0.01)
        else:
            return


def _prepare_file(path: Path, where: str) -> None:
    """Make sure that the file is there and only its owner can read it; SQLite gives its log files the same mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except FileNotFoundError as error:
        raise DatabaseUnusable(where, f"the directory {path.parent} does not exist; create it") from error
    except IsADirectoryError as error:
        raise DatabaseUnusable(where, "it is a directory; name a file in it") from error
    except PermissionError as error:
        raise DatabaseUnusable(where, "this user may not read and write it; change its owner or mode") from error
    except OSError as error:
        raise DatabaseUnusable(where, f"{error.strerror or error}") from error


def _postgres(url: URL, name: str) -> Engine:
    try:
        engine = create_engine(
            url,
            creator=postgres_connector(url, patience_s=RECONNECT_S, name=name),
            json_serializer=dump_json,
            json_deserializer=load_json,
            pool_pre_ping=True,  # a server that restarted costs one query, not a failed call
            pool_size=8,
            max_overflow=24,
        )
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise DatabaseUnusable(_where(url), f"its driver is not installed ({error})") from error
    except SQLAlchemyError as error:
        raise DatabaseUnusable(_where(url), str(error)) from error

    @event.listens_for(engine, "connect")
    def on_connect(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:  # pyright: ignore[reportUnusedFunction]
        cursor = connection.cursor()
        try:
            cursor.execute(f"SET idle_in_transaction_session_timeout = {round(IDLE_IN_TRANSACTION_S * 1000)}")
        finally:
            cursor.close()
        connection.commit()

    return engine


_ALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
"""A server that is gone without a word, with its network, is noticed within about ten seconds."""


def postgres_connector(
    url: str | URL, *, patience_s: float, given_up: Callable[[], bool] = lambda: False, name: str = "interhub"
) -> Callable[[], DBAPIConnection]:
    """Return a function that connects to the PostgreSQL server of a URL.

    A server that was there restarts, most likely: it is tried again for `patience_s`, or until `given_up`, which
    spares everybody an error. One that was never reached is more likely misspelt, and whoever starts the hub wants to
    know at once. What the driver raises at last passes.
    """
    parsed = make_url(url)
    dialect = create_engine(parsed).dialect
    given, options = dialect.create_connect_args(parsed)
    options = {"connect_timeout": CONNECT_TIMEOUT_S, **_ALIVE, **options, "application_name": name}
    reached = False

    def connect() -> DBAPIConnection:
        nonlocal reached
        give_up = monotonic() + (patience_s if reached else 0.0)
        while True:
            try:
                connection = dialect.connect(*given, **options)
            except dialect.loaded_dbapi.OperationalError:
                if monotonic() >= give_up or given_up():
                    raise
                sleep(0.1)
            else:
                reached = True
                return connection

    return connect


_CONDITIONS = (
    ("file is not a database", "it is not a SQLite database; move it away, or name another file"),
    ("malformed", "the file is damaged; restore it from a backup, or move it away to begin anew"),
    ("readonly", "it is read-only; make the file and its directory writable"),
    ("disk is full", "the disk is full; free some space"),
    ("disk i/o error", "the disk fails, or the file was removed while in use"),
    ("unable to open", "it cannot be opened; check that its directory exists and is writable"),
    ("database is locked", f"another process has held it for over {BUSY_TIMEOUT_MS // 1000} s; stop that process"),
)


def _condition(error: DBAPIError, engine: Engine) -> str | None:
    """Say what is wrong with the database itself; None when only the statement was."""
    said = str(error.orig)
    if engine.dialect.name == "sqlite":
        lowered = said.lower()
        return next((f"{why} ({said})" for sign, why in _CONDITIONS if sign in lowered), None)
    if (state := _state(error)) is None:
        return _unreached(said) if error.connection_invalidated or _is_operational(error) else None
    # Classes of SQLSTATE: connection, authorisation, no such database, resources, operator intervention, system.
    # 25006 is a read-only transaction, 25P03 a session that was ended for idling in one, 42501 a missing privilege.
    if state[:2] in ("08", "28", "3D", "53", "57", "58") or state in ("25006", "25P03", "42501"):
        return said.strip().partition("\n")[0]
    return None


def _is_away(error: DBAPIError, engine: Engine) -> bool:
    """Whether the same again may succeed in a moment. Of a failed connection psycopg does not say the SQLSTATE."""
    if engine.dialect.name == "sqlite":
        return False
    state = _state(error)
    return error.connection_invalidated or state is None or state[:2] in ("08", "53", "57") or state == "25P03"


def _state(error: DBAPIError) -> str | None:
    state: object = getattr(error.orig, "sqlstate", None)
    return state if isinstance(state, str) else None


def _is_operational(error: DBAPIError) -> bool:
    return type(error.orig).__name__ == "OperationalError"


_REMEDIES = (
    ("authentication failed", "correct user and password"),
    ("no password supplied", "give the password"),
    ("does not exist", "create it, or name another"),
    ("permission denied", "give the user the right to connect"),
    ("starting up", "try again in a moment"),
    ("too many", "raise the server's `max_connections`, or close others"),
)


def _unreached(said: str) -> str:
    """Say in one line why there is no connection. Where psycopg tried several addresses, the last attempt tells."""
    last = said.strip().splitlines()[-1].strip() if "Multiple connection attempts" in said else said.partition("\n")[0]
    why = re.sub(r"^(- )?(connection (failed|is bad): )?", "", last.strip())
    remedy = next((remedy for sign, remedy in _REMEDIES if sign in why), "start the server, or correct the URL")
    return f"the server cannot be reached: {why}; {remedy}" if "FATAL" not in why else f"{why}; {remedy}"
