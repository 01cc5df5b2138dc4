"""One request of a client while it is served: who asks, how far it is told, and how its person is asked back."""

from collections.abc import Mapping
from typing import Any, cast

import mcp_types as types
import orjson
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from starlette.requests import Request

from interhub.adapters import DELEGATION_KEY, ArtifactChunk, LogLine, Principal, Progress, TaskBound, Update
from interhub.agent_cards import Json, JsonObject

from .content import RESERVED, json_text
from .profiles import Profile
from .questions import Client, Form, client_of

Context = ServerRequestContext[Any, Any]
InputResponses = Mapping[str, types.ElicitResult]

IDEMPOTENCY_KEY = "interhub/idempotencyKey"
"""Key of `_meta` under which our bridge says that a request sent twice is one request."""

_HOP_KEYS = (IDEMPOTENCY_KEY, DELEGATION_KEY, "progressToken", "traceparent", "tracestate", "baggage")


def meta_to_agents(meta: JsonObject) -> JsonObject:
    """Return a request's `_meta` without what belongs to the hop from the client to the hub."""
    return {key: value for key, value in meta.items() if not key.startswith(RESERVED) and key not in _HOP_KEYS}


def mark_in(meta: JsonObject) -> str:
    """Return the mark of a delegation in a request's `_meta`; empty where there is none."""
    mark = meta.get(DELEGATION_KEY)
    return mark if isinstance(mark, str) else ""


def principal_of(ctx: Context) -> Principal:
    """Return the caller of a request, as the outer layer authenticated it."""
    request = ctx.request
    if isinstance(request, Request):
        principal = cast("object", request.state.principal)  # pyright: ignore[reportUnknownMemberType]  # untyped
        if isinstance(principal, Principal):
            return principal
    raise MCPError(types.INTERNAL_ERROR, "the request has no principal: it did not come through the hub's front")


def profile_of(ctx: Context) -> Profile:
    """Return the profile that a request chose, or that its caller gets without choosing; at one agent, all of it."""
    request = ctx.request
    assert isinstance(request, Request), "asked of requests that came over HTTP"
    state = cast("Mapping[str, object]", request.scope["state"])
    profile = state.get("profile")
    return profile if isinstance(profile, Profile) else Profile()


class Turn:
    """One `tools/call`, `prompts/get` or `resources/read`."""

    def __init__(self, ctx: Context, params: types.InputResponseRequestParams, *, question_wait_s: float) -> None:
        self._ctx = ctx
        self._question_wait_s = question_wait_s
        self._told = 0.0
        self._measured = False
        self.principal = principal_of(ctx)
        self.profile = profile_of(ctx)
        self.protocol_version = ctx.protocol_version
        self.client: Client = client_of(
            ctx.session.client_capabilities, ctx.protocol_version, back_channel=ctx.session.can_send_request
        )
        self.answers: InputResponses = {
            key: answer
            for key, answer in (params.input_responses or {}).items()
            if isinstance(answer, types.ElicitResult)
        }
        """What the person answered to the questions of the last round."""
        self.state = _state(params.request_state)
        """What we kept for this round in the last one; empty in the first."""

    @property
    def idempotency_key(self) -> str:
        """The key that the bridge gave this request; empty for other clients."""
        meta = (self._ctx.params or {}).get("_meta")
        key = cast("JsonObject", meta).get(IDEMPOTENCY_KEY) if isinstance(meta, Mapping) else None
        return key if isinstance(key, str) else ""

    @property
    def mark(self) -> str:
        """The mark of the delegation that the request is part of, where an agent passes one on; else empty."""
        meta = (self._ctx.params or {}).get("_meta")
        return mark_in(cast("JsonObject", meta)) if isinstance(meta, Mapping) else ""

    @property
    def meta(self) -> JsonObject:
        """The caller's `_meta`, without what belongs to this hop."""
        meta = (self._ctx.params or {}).get("_meta")
        return meta_to_agents(cast("JsonObject", meta)) if isinstance(meta, Mapping) else {}

    async def tell(self, text: str, *, done: float | None = None, total: float | None = None) -> None:
        """Send a progress notification, where the client asked for them. Its number always grows, as MCP demands."""
        if done is not None and done > self._told:
            self._told, self._measured = done, True
        else:
            self._told += 0.001 if self._measured else 1.0
        await self._ctx.session.report_progress(self._told, total, text or None)

    async def report(self, update: Update) -> None:
        """Take an agent's update: the `Report` of a direct call."""
        match update:
            case Progress():
                await self.tell(update.text, done=update.done, total=update.total)
            case ArtifactChunk():
                if update.last:
                    await self.tell(f"made {update.artifact.name or update.artifact.artifact_id}")
            case LogLine():
                await self.tell(update.text)
            case TaskBound():
                pass

    def ask_by_retry(self, forms: Mapping[str, Form], state: JsonObject) -> types.InputRequiredResult:
        """Return the result that makes a modern client ask its person and send the request again, with this state."""
        requests: dict[str, types.InputRequest] = {
            key: types.ElicitRequest(params=form.params()) for key, form in forms.items()
        }
        return types.InputRequiredResult(input_requests=requests, request_state=json_text(state))

    async def ask(self, form: Form, *, elicitation_id: str) -> types.ElicitResult | None:
        """Ask a legacy client's person while the request is being served; None when it could not be asked or waited."""
        session = self._ctx.session
        request = types.ElicitRequest(params=form.params(elicitation_id=elicitation_id))
        metadata = ServerMessageMetadata(related_request_id=self._ctx.request_id)
        try:
            return await session.send_request(
                request, types.ElicitResult, request_read_timeout_seconds=self._question_wait_s, metadata=metadata
            )
        except MCPError:
            return None


def _state(sealed: str | None) -> JsonObject:
    """Read what we kept; the boundary has opened and checked it."""
    if not sealed:
        return {}
    try:
        state: Json = orjson.loads(sealed)
    except orjson.JSONDecodeError:
        state = None
    return state if isinstance(state, Mapping) else {}
