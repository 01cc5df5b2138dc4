"""The command line. What a command needs is imported when it runs, so that `interhub --help` answers at once."""

from .main import main

__all__ = ["main"]
