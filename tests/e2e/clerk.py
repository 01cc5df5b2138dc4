"""An agent for the tests of the faces, in the hub's own process: does what the first word of its message says."""

import anyio

from interhub.adapters import (
    Artifact,
    ArtifactChunk,
    Completed,
    InputRequired,
    Outcome,
    Progress,
    RawPart,
    RemoteRefused,
    Resume,
    TextPart,
)
from interhub.adapters import Report as Reporter


async def clerk(message: str, report: Reporter, resume: Resume | None) -> Outcome:
    """Echoes, counts, makes files, asks, holds and fails."""
    word, _, rest = message.partition(" ")
    match word:
        case "count":
            return await _count(int(rest), report)
        case "ask":
            if resume is None:
                return InputRequired(question=(TextPart(text="Which colour?"),), state={"asked": True})
            return Completed(parts=resume.answer)
        case "make":
            file = RawPart(raw=bytes(int(rest)), media_type="application/x-zeros", filename="zeros.bin")
            small = TextPart(text="small")
            made = Artifact(artifact_id="zeros/1", name="zeros", parts=(small, file))
            return Completed(parts=(TextPart(text=f"made {rest}"),), artifacts=(made,))
        case "hold":
            await report(Progress(text="holding"))
            await anyio.sleep_forever()
            raise AssertionError("for ever is over")
        case "fail":
            raise RemoteRefused("clerk", rest)
        case _:
            return Completed(parts=(TextPart(text=rest),))


async def _count(chunks: int, report: Reporter) -> Outcome:
    made: list[TextPart] = []
    for number in range(chunks):
        await report(Progress(text=f"counted {number}", done=number, total=chunks))
        made.append(TextPart(text=f"{number} "))
        chunk = Artifact(artifact_id="numbers", name="numbers", parts=(made[-1],))
        await report(ArtifactChunk(artifact=chunk, append=number > 0, last=number == chunks - 1))
    whole = Artifact(artifact_id="numbers", name="numbers", parts=tuple(made))
    return Completed(parts=(TextPart(text=f"counted to {chunks}"),), artifacts=(whole,))
