"""Values of steps, and where the large ones among them are kept."""

from datetime import UTC, datetime
from typing import cast

import orjson
import sqlalchemy as sa

from interhub.agent_cards import Json, JsonObject
from interhub.registry.database import reading

from . import records
from .envelope import StepValue, succeeded
from .journal import Journal

MAX_INLINE_BYTES = 100_000
"""A larger value is kept as a blob: the engine would store it twice, and every replay read it."""


async def pack(journal: Journal, value: StepValue, run_id: str) -> dict[str, Json]:
    """Return the envelope of a value; a large one is kept as a blob first, as long as the root run is."""
    shaped = value.dump()
    data = orjson.dumps(shaped)
    if len(data) <= MAX_INLINE_BYTES:
        return succeeded(value)
    now = datetime.now(UTC)
    name = await journal.write(lambda connection: records.put_blob(connection, data, now, run_id=run_id))
    return {"ok": True, "blob": name}


def load_blob(database: sa.Engine, name: str) -> JsonObject:
    """Return a large value.

    Raises:
        LookupError: it is not there.
    """
    with reading(database) as connection:
        data = records.find_blob(connection, name)
    if data is None:
        raise LookupError(f"the database has no value {name}")
    return cast("JsonObject", orjson.loads(data))
