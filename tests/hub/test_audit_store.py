import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text

from interhub.hub.audit import AuditRecord
from interhub.hub.audit_store import SqlAuditLog
from interhub.registry.database import audit, open_database


def _record(n: int, **detail: int) -> AuditRecord:
    return AuditRecord(
        at=datetime(2026, 11, 21, tzinfo=UTC),
        tenant="default",
        subject="local",
        action="call",
        target=f"agent/{n}",
        decision="allow",
        outcome="completed",
        duration_ms=1.6,
        detail=detail,
    )


def _targets(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(select(audit.c.target).order_by(audit.c.id)).scalars())


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/interhub.db")
    yield engine
    engine.dispose()


def test_records_are_written_in_order_by_many_threads(engine: Engine) -> None:
    with SqlAuditLog(engine, batch=7, linger_s=0.01) as log:

        def append_fifty() -> None:
            for n in range(50):
                log.append(_record(n))

        threads = [threading.Thread(target=append_fifty) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert log.flush()
        assert len(_targets(engine)) == 200


def test_what_is_left_is_written_when_it_is_closed(engine: Engine) -> None:
    with SqlAuditLog(engine, linger_s=60.0) as log:
        for n in range(3):
            log.append(_record(n, key=n))
    assert _targets(engine) == ["agent/0", "agent/1", "agent/2"]
    with engine.connect() as connection:
        row = connection.execute(select(audit)).first()
    assert row is not None
    assert (row.duration_ms, row.detail, row.at) == (2, {"key": 0}, datetime(2026, 11, 21, tzinfo=UTC))


def test_a_database_that_cannot_be_written_is_tried_again(engine: Engine) -> None:
    with SqlAuditLog(engine, linger_s=0.0, retry_s=0.05) as log:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE audit RENAME TO hidden"))
        log.append(_record(1))
        assert not log.flush(timeout_s=0.2)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE hidden RENAME TO audit"))
        assert log.flush()
    assert _targets(engine) == ["agent/1"]


def test_when_too_many_wait_the_oldest_are_dropped_and_appending_never_blocks(engine: Engine) -> None:
    log = SqlAuditLog(engine, capacity=3, linger_s=0.0)
    for n in range(5):
        log.append(_record(n))
    with log:
        assert log.flush()
    assert _targets(engine) == ["agent/2", "agent/3", "agent/4"]


def test_a_record_is_read_as_it_was_taken_whatever_it_holds(database_url: str) -> None:
    engine = open_database(database_url)
    taken = _record(1, key=2**53)._replace(
        at=datetime(2026, 11, 21, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=2))),
        target="agent/'\"\\é漢\x00\ud800?:name",
        duration_ms=2.5,
    )
    with SqlAuditLog(engine, linger_s=0.01) as log:
        log.append(taken)
        log.append(_record(2))
    with engine.connect() as connection:
        rows = connection.execute(select(audit).order_by(audit.c.id)).all()
    engine.dispose()
    assert [row.target for row in rows] == ["agent/'\"\\é漢\ufffd\ufffd?:name", "agent/2"]
    assert (rows[0].at, rows[0].detail, rows[0].duration_ms) == (taken.at, {"key": 2**53}, 2)
    assert (rows[1].at, rows[1].detail, rows[1].outcome) == (_record(2).at, {}, "completed")
