"""Webhooks: what proves where a request comes from, and which requests are the same event."""

import base64
import hmac

import pytest

from interhub.hub.errors import HookRefused
from interhub.hub.triggers.document import WebhookSpec
from interhub.hub.triggers.signatures import event_id, new_secret

NOW = 1_800_000_000.0
BODY = b'{"order": 7}'


def signed(secret: str, *, body: bytes = BODY, at: float = NOW, name: str = "msg_1") -> dict[str, str]:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{name}.{int(at)}.".encode() + body, "sha256").digest()
    return {
        "webhook-id": name,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": f"v1,AAAA v1,{base64.b64encode(mac).decode()}",
    }


def taken(verify: str, secret: str, headers: dict[str, str], body: bytes = BODY, **spec: str) -> str:
    hook = WebhookSpec.model_validate({"verify": verify, **spec})
    return event_id(hook, secret, headers, body, now=lambda: NOW)


def test_the_standards_own_example_is_taken() -> None:
    # Standard Webhooks 1.0, the test vector of its reference libraries.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    body = b'{"test": 2432232314}'
    assert event_id(WebhookSpec(), secret, headers, body, now=lambda: 1614265330.0) == headers["webhook-id"]


def test_a_signed_request_is_its_id_and_what_is_changed_in_it_is_refused() -> None:
    secret = new_secret()
    headers = signed(secret)
    assert taken("standard", secret, headers) == "msg_1"
    for changed in (
        {**headers, "webhook-id": "msg_2"},
        {**headers, "webhook-timestamp": str(int(NOW) + 1)},
        {**headers, "webhook-signature": "v1,"},
        signed(new_secret()),
    ):
        with pytest.raises(HookRefused, match="not right"):
            taken("standard", secret, changed)
    with pytest.raises(HookRefused, match="not right"):
        taken("standard", secret, headers, b'{"order": 8}')
    with pytest.raises(HookRefused, match="webhook-id is missing"):
        taken("standard", secret, {})


@pytest.mark.parametrize("at", [NOW - 301, NOW + 301])
def test_a_request_that_is_sent_again_later_is_refused(at: float) -> None:
    secret = new_secret()
    with pytest.raises(HookRefused, match="signed more than 300 s ago"):
        taken("standard", secret, signed(secret, at=at))


def test_githubs_request_is_its_body_under_whatever_id_it_comes() -> None:
    secret = "a secret of github"
    mac = hmac.new(secret.encode(), BODY, "sha256").hexdigest()
    headers = {"x-hub-signature-256": f"sha256={mac}", "x-github-delivery": "one"}
    first = taken("github", secret, headers)
    assert taken("github", secret, {**headers, "x-github-delivery": "two"}) == first
    with pytest.raises(HookRefused):
        taken("github", secret, headers, b"{}")


def test_a_plain_secret_is_compared_and_the_event_named_by_a_header() -> None:
    headers = {"x-gitlab-token": "a long enough secret", "x-gitlab-event-uuid": "e-1"}
    header, id_header = "X-Gitlab-Token", "X-Gitlab-Event-UUID"
    assert taken("header", "a long enough secret", headers, header=header, id_header=id_header) == "e-1"
    with pytest.raises(HookRefused):
        taken("header", "another secret", headers, header=header, id_header=id_header)
    with pytest.raises(HookRefused, match="x-gitlab-event-uuid is missing"):
        taken(
            "header",
            "a long enough secret",
            {"x-gitlab-token": "a long enough secret"},
            header=header,
            id_header=id_header,
        )
    bearer = {"authorization": "Bearer a long enough secret"}
    assert taken("header", "a long enough secret", bearer, header="Authorization")
    with pytest.raises(HookRefused):
        taken("header", "a long enough secret", {"authorization": "Bearer "}, header="Authorization")


def test_a_push_of_an_a2a_task_is_proved_by_its_token() -> None:
    assert taken("a2a", "token of the task", {"x-a2a-notification-token": "token of the task"}).startswith("sha256:")
    with pytest.raises(HookRefused):
        taken("a2a", "token of the task", {"x-a2a-notification-token": "ümläut"})
