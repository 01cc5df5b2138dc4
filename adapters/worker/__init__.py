"""Agents of a framework, each in a process and an environment of its own."""

from .adapter import WorkerAdapter, WorkerConnection
from .environment import FRAMEWORKS, Environment, Environments
from .options import WorkerOptions

__all__ = ["FRAMEWORKS", "Environment", "Environments", "WorkerAdapter", "WorkerConnection", "WorkerOptions"]
