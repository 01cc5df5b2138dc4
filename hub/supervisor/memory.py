"""The memory that the steps of a plan share: written when a step ends well, read by templates as `memory.NAME`.

It is not kept anywhere: what was written follows from the recorded results, in the order in which steps ended.
"""

from collections.abc import Mapping

import orjson

from interhub.agent_cards import Json, JsonObject

from .envelope import mapping
from .run import EventKind
from .scene import Scene
from .template import TemplateFailed, render_all

MAX_MEMORY_BYTES = 256 * 1024
"""As JSON: all of it is handed on to plans within the plan."""


class Memory:
    """One execution's memory. A plan within the plan begins with a copy, and gives back what it wrote."""

    def __init__(self, scene: Scene, given: JsonObject) -> None:
        self._scene = scene
        self.values: dict[str, Json] = dict(given)
        """What templates see."""
        self._written: dict[str, Json] = {}

    def write(self, step: str, templates: JsonObject, values: Mapping[str, object]) -> None:
        """Write what a step has to remember.

        Raises:
            TemplateFailed: a template cannot be rendered, or it is too much.
        """
        new = mapping(render_all(templates, values))
        after = {**self.values, **new}
        if len(orjson.dumps(after)) > MAX_MEMORY_BYTES:
            raise TemplateFailed(f"the run's memory may have {MAX_MEMORY_BYTES // 1024} KiB")
        self.values |= new
        self._written |= new
        self._scene.tell(EventKind.MEMORY_WRITTEN, step, 1, values=new)

    def lend(self) -> dict[str, Json]:
        """Return what a plan within the plan is given of it."""
        return {"memory": dict(self.values)} if self.values else {}

    def report(self) -> dict[str, Json]:
        """Return what was written, for the plan around this one."""
        return {"memory": dict(self._written)} if self._written else {}

    def take_back(self, envelope: JsonObject) -> None:
        """Take what a plan within the plan has written."""
        written = mapping(envelope.get("memory"))
        self.values |= written
        self._written |= written
