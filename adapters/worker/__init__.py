"""Agents of a framework, each in a process and an environment of its own."""

from .adapter import WorkerAdapter, WorkerConnection, WorkerOptions
from .environment import FRAMEWORKS, Environment, Environments

__all__ = ["FRAMEWORKS", "Environment", "Environments", "WorkerAdapter", "WorkerConnection", "WorkerOptions"]
