"""`interhub` that writes how many tasks it has into a file on SIGUSR2: `python -m benchmarks.soaking.watched_hub F`."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from interhub.hub.cli import main


def watch(file: Path) -> None:
    """Count at the signal; a reader that sees the file sees all of it."""

    def count(_signal: int, _frame: FrameType | None) -> None:
        # Not by `gc.get_objects()`: whoever holds a tuple that another thread is building makes that fail.
        written = file.with_suffix(".new")
        written.write_text(str(len(asyncio.all_tasks())))
        os.replace(written, file)

    signal.signal(signal.SIGUSR2, count)


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
