"""What is recorded of steps, over the one table of the engine's that says whose a run is."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from interhub.hub.supervisor.checkpoints import Checkpoint, Checkpoints, OwnerLost

pytestmark = pytest.mark.anyio

STEP = Checkpoint(run_id="run", owner="me", number=1, name="step", output="1", started_ms=0, ended_ms=1)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    """Of a database in which no run is anybody's."""
    database = sa.create_engine(f"sqlite:///{tmp_path}/engine.db")
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE workflow_status (workflow_uuid TEXT, owner_xid TEXT)")
    made = Checkpoints(database, serialization="json", application="test", passing=lambda error: False)
    yield made
    made.close()
    database.dispose()


async def test_a_record_of_a_run_that_is_anothers_is_refused(checkpoints: Checkpoints) -> None:
    with pytest.raises(OwnerLost):
        await checkpoints.record(STEP)


async def test_a_record_that_is_refused_when_its_caller_is_gone_is_nobodys_error(checkpoints: Checkpoints) -> None:
    unread: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unread.append(str(context["message"])))
    busy, go_on = threading.Event(), threading.Event()

    def hold(connection: sa.Connection) -> None:
        busy.set()
        go_on.wait(10)

    holding = asyncio.create_task(asyncio.to_thread(checkpoints.write, hold))
    await asyncio.to_thread(busy.wait, 10)
    record = asyncio.create_task(checkpoints.record(STEP))
    await asyncio.sleep(0)
    record.cancel()
    with pytest.raises(asyncio.CancelledError):
        await record
    go_on.set()
    await holding
    with pytest.raises(OwnerLost):
        await checkpoints.record(STEP)  # after the other, which is settled by now
    del record
    gc.collect()
    assert unread == []
