"""What a plan comes to: which steps it has, told as it begins, and the envelope that it ends with."""

from dataclasses import replace

from interhub.adapters import Artifact, RemoteRejected
from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import TABLE

from .blobs import pack
from .envelope import named_artifacts, text
from .frame import Frame, Leaf
from .orders import call_of
from .run import EventKind
from .scene import Scene


async def outcome_of(scene: Scene, root: Frame) -> JsonObject:
    """Return the envelope of a plan that is over."""
    if root.error is not None:
        error = dict(root.error)
        # One agent that declines has rejected the run; one of several has failed it.
        if len(root.leaves) == 1 and error.get("reason") == TABLE[RemoteRejected].reason:
            error["rejected"] = True
        else:
            error.pop("rejected", None)
        if root.troubles:
            error["message"] = f"{text(error, 'message')}; {'; '.join(root.troubles)}"
        return {"ok": False, "error": error}
    return await pack(scene.journal, replace(root.value, artifacts=artifacts_of(scene, root)), scene.root)


def artifacts_of(scene: Scene, root: Frame) -> tuple[Artifact, ...]:
    """Return what the steps of a plan made, each with its step's path before its id."""
    return tuple(artifact for leaf in root.leaves.values() for artifact in _made(scene, leaf))


def _made(scene: Scene, leaf: Leaf) -> list[Artifact]:
    """Return what a leaf and those within it made, each with its step's path before its id."""
    if leaf.frames:
        return [made for frame in leaf.frames for inner in frame.leaves.values() for made in _made(scene, inner)]
    if leaf.child:
        return list(leaf.value.artifacts)
    return list(named_artifacts(scene.path(leaf), leaf.value.artifacts))


def tell_plan(scene: Scene, root: Frame) -> None:
    """Tell the journal which steps there are."""
    planned = scene.planned
    steps: list[Json] = []

    def place(path: str) -> str:
        return scene.absolute(f"{root.prefix}.{path}" if root.prefix else path)

    for node in root.graph.nodes:
        call = call_of(node.step)
        steps.append(
            {
                "path": place(node.path),
                "title": node.step.title,
                "agent": call.agent if call is not None else "",
                "need": call.need if call is not None else "",
                "capability": call.capability if call is not None else "",
                "after": [place(path) for path in node.after],
            }
        )
    name = planned.plan.name
    payload: dict[str, Json] = {"planner": planned.planner, "why": planned.why, "name": name, "steps": steps}
    if planned.round:
        payload["round"] = planned.round
    scene.tell_nth(planned.round, EventKind.RUN_PLANNED, scene.prefix, 0, payload)
