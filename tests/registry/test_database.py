"""The database: its tables, its migrations, and what is said when it cannot be used."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

from interhub.registry import DatabaseTooNew, DatabaseUnusable
from interhub.registry.conformance import example
from interhub.registry.database import (
    MIGRATIONS,
    agents,
    audit,
    events,
    head_revision,
    metadata,
    open_database,
    stored_revision,
    writing,
)


@pytest.mark.parametrize("how", ["made at once", "migrated"])
def test_the_tables_are_those_the_code_declares(database_url: str, how: str) -> None:
    engine = open_database(database_url)
    if how == "migrated":
        with writing(engine) as connection:
            command.downgrade(migrations(connection), "base")
            assert inspect(connection).get_table_names() == ["alembic_version"]
            command.upgrade(migrations(connection), "head")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
        assert stored_revision(connection) == head_revision()
    engine.dispose()


def test_a_database_of_an_earlier_version_is_migrated(database_url: str) -> None:
    engine = open_database(database_url)
    with writing(engine) as connection:
        command.downgrade(migrations(connection), "0001")
    engine.dispose()
    engine = open_database(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert stored_revision(connection) == head_revision()
    engine.dispose()


def migrations(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def test_our_list_of_revisions_is_alembics(sqlite_url: str) -> None:
    engine = open_database(sqlite_url)
    with engine.connect() as connection:
        script = ScriptDirectory.from_config(migrations(connection))
    engine.dispose()
    assert script.get_heads() == [head_revision()]


def test_migrations_can_be_taken_back(database_url: str) -> None:
    engine = open_database(database_url)
    with writing(engine) as connection:
        command.downgrade(migrations(connection), "base")
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()
    engine = open_database(database_url)
    with engine.connect() as connection:
        assert stored_revision(connection) == head_revision()
    engine.dispose()


def test_a_migration_that_is_cut_off_leaves_nothing(database_url: str) -> None:
    # Before our tables come, one of theirs stands in the way: the migration fails in its middle.
    engine = open_database(database_url)
    with writing(engine) as connection:
        metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
        connection.execute(text("CREATE TABLE runs (id TEXT)"))
    engine.dispose()
    with pytest.raises(Exception, match="runs"):
        open_database(database_url)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["runs"]
    engine.dispose()


def test_many_open_a_new_database_at_once(database_url: str) -> None:
    failures: list[BaseException] = []
    ready = threading.Barrier(4)

    def open_it() -> None:
        ready.wait(timeout=10)
        try:
            open_database(database_url).dispose()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert failures == []


def test_a_database_that_is_new_or_at_its_head_does_not_load_alembic(sqlite_url: str) -> None:
    program = (
        "import sys; from interhub.registry.database import open_database; "
        "open_database(sys.argv[1]).dispose(); assert 'alembic' not in sys.modules"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program, sqlite_url], check=True, timeout=60)


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "interhub.db"
    engine = open_database(f"sqlite:///{path}")
    with writing(engine) as connection:
        connection.execute(text("DELETE FROM agents"))
    modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    engine.dispose()
    assert modes == {"interhub.db": 0o600, "interhub.db-wal": 0o600, "interhub.db-shm": 0o600}


def test_a_file_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "interhub.db"
    path.touch(mode=0o644)
    path.chmod(0o644)
    open_database(f"sqlite:///{path}").dispose()
    assert path.stat().st_mode & 0o777 == 0o600


def test_sqlite_is_opened_for_many(sqlite_url: str) -> None:
    engine = open_database(sqlite_url)
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 10_000, "synchronous": 1}


def test_writers_that_read_first_do_not_trip_over_one_another(database_url: str) -> None:
    engine = open_database(database_url)
    each, writers = 20, 4

    def append(writer: int) -> None:
        for number in range(each):
            with writing(engine) as connection:
                if engine.dialect.name == "postgresql":
                    connection.execute(text("LOCK TABLE events IN EXCLUSIVE MODE"))
                last = connection.execute(select(func.max(events.c.seq))).scalar() or 0
                connection.execute(
                    insert(events).values(
                        run_id="r",
                        seq=last + 1,
                        step=f"s{writer}",
                        attempt=1,
                        kind="k",
                        n=number,
                        at=example().created_at,
                        payload={"n": number},
                    )
                )

    threads = [threading.Thread(target=append, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(events)).scalar() == each * writers
    engine.dispose()


def test_an_event_is_appended_once(database_url: str) -> None:
    engine = open_database(database_url)
    event: dict[str, object] = {
        "run_id": "r",
        "step": "s",
        "attempt": 1,
        "kind": "step_started",
        "n": 0,
        "at": example().created_at,
        "payload": {},
    }
    with writing(engine) as connection:
        connection.execute(insert(events).values(seq=1, **event))
    with pytest.raises(IntegrityError), writing(engine) as connection:
        connection.execute(insert(events).values(seq=2, **event))
    engine.dispose()


def test_audit_records_number_themselves_and_no_number_comes_twice(database_url: str) -> None:
    engine = open_database(database_url)
    record: dict[str, object] = {
        "at": example().created_at,
        "tenant": "default",
        "subject": "me",
        "action": "call",
        "target": "a/b",
        "decision": "allow",
        "outcome": "completed",
        "duration_ms": 0.25,
        "detail": {},
    }
    with writing(engine) as connection:
        connection.execute(insert(audit), [record, record])
        connection.execute(text("DELETE FROM audit"))
        connection.execute(insert(audit), [record])
        assert connection.execute(select(audit.c.id, audit.c.at)).all() == [(3, record["at"])]
    engine.dispose()


def test_a_moment_without_a_zone_is_refused(sqlite_url: str) -> None:
    engine = open_database(sqlite_url)
    naive = example().created_at.replace(tzinfo=None)
    with pytest.raises(Exception, match="time zone"), writing(engine) as connection:
        connection.execute(select(agents).where(agents.c.created_at == naive))
    engine.dispose()


def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    engine = open_database(database_url)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(DatabaseTooNew, match="9999") as caught:
        open_database(database_url)
    assert "upgrade interhub" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"This is no database, and it is longer than a hundred bytes." * 5, "not a SQLite database"),
        (b"SQLite format 3\x00" + b"\xff" * 5000, "(not a SQLite database|damaged)"),
    ],
)
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "interhub.db"
    path.write_bytes(content)
    with pytest.raises(DatabaseUnusable, match=why) as caught:
        open_database(f"sqlite:///{path}")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "interhub.db"
    open_database(f"sqlite:///{path}").dispose()
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xaa" * (len(whole) - 100))
    with pytest.raises(DatabaseUnusable, match="damaged"):
        open_database(f"sqlite:///{path}")


def test_a_read_only_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "interhub.db"
    open_database(f"sqlite:///{path}").dispose()
    # By SQLite's own option: file modes do not hold back root, who may run the tests.
    with pytest.raises(DatabaseUnusable, match="read-only"):
        open_database(f"sqlite:///file:{path}?mode=ro&uri=true")


def test_a_file_that_this_user_may_not_write_is_named(tmp_path: Path) -> None:
    path = tmp_path / "interhub.db"
    open_database(f"sqlite:///{path}").dispose()
    path.chmod(0o400)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)  # nobody: root may write whatever the mode says
    try:
        with pytest.raises(DatabaseUnusable, match="may not read and write"):
            open_database(f"sqlite:///{path}")
    finally:
        os.seteuid(me)


def test_a_locked_database_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interhub.registry.database.BUSY_TIMEOUT_MS", 50)
    path = tmp_path / "interhub.db"
    open_database(f"sqlite:///{path}").dispose()
    holder = sqlite3.connect(path, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnusable, match="another process"):
            open_database(f"sqlite:///{path}")
    finally:
        holder.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite:////nowhere/at/all/interhub.db", "/nowhere/at/all does not exist"),
        ("sqlite:////tmp", "it is a directory"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://localhost/x", "only sqlite and postgresql"),
        ("not a url", "no database URL"),
        ("postgresql://nobody:secret@127.0.0.1:1/x", "cannot be reached"),
    ],
)
def test_an_address_that_cannot_be_used_is_named(url: str, why: str) -> None:
    with pytest.raises(DatabaseUnusable, match=why) as caught:
        open_database(url)
    assert "secret" not in str(caught.value)


def test_a_postgres_database_that_is_not_there_is_named(postgres: str) -> None:
    with pytest.raises(DatabaseUnusable, match="does not exist"):
        open_database(postgres.replace("/postgres?", "/no_such_database?"))
