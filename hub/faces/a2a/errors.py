"""Our errors in the A2A SDK's words: it turns its own into JSON-RPC, HTTP and google.rpc ErrorInfo on every binding."""

from collections.abc import Generator
from contextlib import contextmanager

import structlog
from a2a.utils import errors as a2a
from google.protobuf.json_format import ParseError

from interhub.adapters import AdapterError
from interhub.hub.errors import HubError, PlanInvalid, Problem, problem_of
from interhub.registry import RegistryError

log = structlog.get_logger()

CODE_KEY = "code"
"""Names our own reason in `ErrorInfo.metadata`, where A2A's reason is the more general one."""

_BY_CODE: dict[int, type[a2a.A2AError]] = {code: error for error, code in a2a.JSON_RPC_ERROR_CODE_MAP.items()}


@contextmanager
def in_a2a_words() -> Generator[None]:
    """Turn what the hub raises into what the SDK says. What we do not know is logged, and said without its text."""
    try:
        yield
    except (a2a.A2AError, ParseError):
        raise
    except (HubError, RegistryError, AdapterError) as error:
        raise a2a_error(error) from error
    except Exception as error:
        log.exception("a2a_request_failed")
        raise a2a_error(error) from error


def a2a_error(error: BaseException) -> a2a.A2AError:
    """Return the SDK's error for one of ours, by the table in `interhub.hub.errors`."""
    problem = problem_of(error)
    kind = _BY_CODE.get(problem.status.jsonrpc, a2a.InternalError)
    return kind(problem.message, _data(kind, problem, error))


def _data(kind: type[a2a.A2AError], problem: Problem, error: BaseException) -> dict[str, object] | None:
    data: dict[str, object] = {}
    if problem.status.reason != a2a.A2A_ERROR_REASONS.get(kind):
        data[CODE_KEY] = problem.status.reason
    if isinstance(error, PlanInvalid):
        # The SDK makes google.rpc.BadRequest with its field violations of these.
        data["errors"] = [{"field": mistake.where, "message": mistake.what} for mistake in error.mistakes]
    return data or None
