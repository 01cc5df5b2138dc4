"""`interhub` that writes how many tasks it has into a file on SIGUSR2: `python -m benchmarks.soaking.watched_hub F`."""

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import cast

from interhub.hub.cli import main


def watch(file: Path) -> None:
    """Count at the signal; a reader that sees the file sees all of it."""

    def count(_signal: int, _frame: FrameType | None) -> None:
        gc.collect()
        written = file.with_suffix(".new")
        written.write_text(str(sum(map(_goes_on, gc.get_objects()))))
        os.replace(written, file)

    signal.signal(signal.SIGUSR2, count)


def _goes_on(value: object) -> bool:
    return isinstance(value, asyncio.Task) and not cast("asyncio.Task[object]", value).done()


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
