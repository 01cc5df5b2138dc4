"""ListTasks: filters, pages and their tokens (A2A 1.0, section 3.1.4)."""

from datetime import UTC, datetime

from a2a import types as a2a
from a2a.utils.errors import InvalidParamsError
from a2a.utils.task import decode_page_token, encode_page_token, validate_page_size

from interhub.hub.supervisor.run import Run, RunFilter, RunState

from .task import run_state_of

PAGE_SIZE = 50
"""Tasks on a page where the caller names no number."""


def filter_of(params: a2a.ListTasksRequest, agent_id: str) -> RunFilter:
    """Return which runs are asked for; `agent_id` is the agent at whose own address it is asked.

    Raises:
        InvalidParamsError: the state is none of A2A's.
    """
    state: RunState | None = None
    if params.status != a2a.TaskState.TASK_STATE_UNSPECIFIED:
        state = run_state_of(params.status)
        if state is None:
            raise InvalidParamsError(f"status {params.status} is none of the states of A2A")
    since = params.status_timestamp_after.ToDatetime(UTC) if params.HasField("status_timestamp_after") else None
    return RunFilter(state=state, context_id=params.context_id, agent_id=agent_id, changed_since=since)


def page_size_of(params: a2a.ListTasksRequest) -> int:
    """Return how many tasks a page is to hold.

    Raises:
        InvalidParamsError: it is not from 1 to 100.
    """
    if params.HasField("page_size"):
        validate_page_size(params.page_size)
    return params.page_size or PAGE_SIZE


def page_token_of(run: Run) -> str:
    """Return the token of the page that follows a run."""
    return encode_page_token(f"{run.updated_at.isoformat()}|{run.id}")


def page_begin_of(token: str) -> tuple[datetime, str] | None:
    """Return after which run a page begins: when that changed, and its id; None for the first page.

    Raises:
        InvalidParamsError: the token is none of ours.
    """
    if not token:
        return None
    at, _, run_id = decode_page_token(token).partition("|")
    try:
        return datetime.fromisoformat(at), run_id
    except ValueError as error:
        raise InvalidParamsError("the page token is not one of this list") from error
