"""What the endpoint of a worker says of its agent."""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from interhub.adapters.errors import BadEndpoint
from interhub.agent_cards import Endpoint

from .environment import FRAMEWORKS


class Skill(BaseModel):
    """What the agent's one skill is called, where its owner knows better than the code."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    input_schema: dict[str, object] | None = None


class WorkerOptions(BaseModel):
    """The `options` of a worker's endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str = Field(min_length=1)
    """`/path/file.py:object`, `module:object`, or without `:object` a file with only one agent in it."""
    framework: Literal["langgraph", "crewai"]
    requirements: str = ""
    """A file of the agent's own packages, hash-locked or not, installed beside the framework's."""
    python: str = ""
    """The Python that the environment is built with, as a version or a path; empty means the hub's own."""
    environment: str = ""
    """An environment that is there already and has the framework in it; nothing is built then."""
    skill: Skill = Skill()
    processes: int = Field(default=2, ge=1, le=64)
    """How many processes may run at once for the agent."""
    warm: int = Field(default=1, ge=1, le=64)
    """How many of them are kept ready."""
    start_timeout_s: float = Field(default=120.0, gt=0)
    """How long importing the framework and the agent may take."""


def read_options(endpoint: Endpoint) -> WorkerOptions:
    """Read an endpoint's options.

    Raises:
        BadEndpoint: one is missing, unknown or of a wrong kind; names them all.
    """
    try:
        return WorkerOptions.model_validate(dict(endpoint.options))
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        where = str(endpoint.options.get("target") or "a worker's options")
        raise BadEndpoint(where, said, f"frameworks: {', '.join(FRAMEWORKS)}") from error


def split_target(target: str) -> tuple[str, str]:
    """Return the file or module, and the name in it, which may be missing."""
    place, colon, attr = target.rpartition(":")
    return (place, attr) if colon and not attr.endswith(".py") else (target, "")


def absolute_target(target: str, cwd: Path) -> str:
    """Make a file's path absolute.

    Raises:
        BadEndpoint: the file is not there.
    """
    place, attr = split_target(target)
    if not place.endswith(".py") and os.sep not in place:
        return target
    path = (cwd / Path(place).expanduser()).resolve()
    if not path.is_file():
        raise BadEndpoint(str(path), "there is no such file", "give the agent as /path/file.py:object")
    return f"{path}:{attr}" if attr else str(path)
