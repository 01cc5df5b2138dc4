"""How a webhook's request proves where it comes from, and which event it is.

standard   Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp` and `webhook-signature: v1,BASE64`, an HMAC-SHA256
           of `ID.TIMESTAMP.BODY`; five minutes old at most
github     `X-Hub-Signature-256: sha256=HEX` over the body. The delivery's id is not signed, so its body is the event: a
           request that is sent again, under whatever id, is the same event
header     a header holds the secret itself. What is sent again is known only by `id_header`
a2a        the hub's own place among an A2A task's push notifications (A2A 1.0, section 4.3.3): the token in
           `X-A2A-Notification-Token`; the event is its body
"""

import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from uuid import uuid4

from interhub.hub.errors import HookRefused

from .document import WebhookSpec

TOLERANCE_S = 300.0
"""How far a request's time may be from ours: Standard Webhooks asks for some minutes."""
_MAX_ID_CHARS = 200
_PREFIX = "whsec_"


def new_secret() -> str:
    """Return a fresh secret, as Standard Webhooks writes it."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def event_id(
    spec: WebhookSpec,
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: Callable[[], float] = time.time,
) -> str:
    """Check a request, and return its event's id: the same for the same event. `headers` have small names.

    Raises:
        HookRefused: it does not hold what it must.
    """
    match spec.verify:
        case "standard":
            return _standard(secret, headers, body, now())
        case "github":
            given = _needed(headers, "x-hub-signature-256").removeprefix("sha256=")
            right = hmac.new(secret.encode(), body, "sha256").hexdigest()
            _same(given, [right])
            return _digest(body)
        case "header":
            _same(_needed(headers, spec.header.lower()).removeprefix("Bearer "), [secret])
            if spec.id_header:
                return _id(_needed(headers, spec.id_header.lower()))
            return str(uuid4())
        case "a2a":
            _same(_needed(headers, "x-a2a-notification-token"), [secret])
            return _digest(body)


def _standard(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str:
    name, stamp = _needed(headers, "webhook-id"), _needed(headers, "webhook-timestamp")
    if not stamp.isascii() or not stamp.isdecimal() or len(stamp) > 12:
        raise HookRefused("webhook-timestamp is no number of seconds")
    key = secret.encode()
    if secret.startswith(_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            raise HookRefused("its secret, as the hub has it, is not base64") from None
    signed = b".".join([name.encode(), stamp.encode(), body])
    right = base64.b64encode(hmac.new(key, signed, "sha256").digest()).decode()
    given = _needed(headers, "webhook-signature").split()
    _same(right, [each.removeprefix("v1,") for each in given if each.startswith("v1,")])
    if abs(now - int(stamp)) > TOLERANCE_S:
        raise HookRefused(f"it was signed more than {TOLERANCE_S:g} s ago, or ahead of our clock")
    return _id(name)


def _needed(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "").strip()
    if not value:
        raise HookRefused(f"the header {name} is missing")
    return value


def _same(given: str, known: list[str]) -> None:
    found = [hmac.compare_digest(given.encode(), each.encode()) for each in known]
    if not any(found):
        raise HookRefused("its signature or secret is not right")


def _id(given: str) -> str:
    return given if len(given) <= _MAX_ID_CHARS else _digest(given.encode())


def _digest(data: bytes) -> str:
    return f"sha256:{sha256(data).hexdigest()}"
