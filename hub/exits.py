"""The exit codes of the command line: one for each thing that a script would do something else about."""

from enum import IntEnum


class Exit(IntEnum):
    """What a command ends with; `docs/cli.md` lists them."""

    DONE = 0
    FAILED = 1
    """What was asked was refused or failed: the hub's answer, or the run's end."""
    USAGE = 2
    """The command line itself is wrong."""
    NOT_RUNNING = 3
    """No hub runs on the data directory."""
    UNUSABLE = 4
    """Settings, data directory or database cannot be used as they are."""
    ALREADY_RUNNING = 5
    """Another hub holds the data directory."""
    ADDRESS_IN_USE = 6
    """Another program listens on the port."""
    WAITING = 7
    """The run waits for an answer, and nobody is there to ask."""
    INTERRUPTED = 130
    """Ctrl-C."""
