"""How long is waited between tries."""

from interhub.adapters.backoff import Backoff


def test_the_wait_doubles_and_is_capped_however_often_it_failed() -> None:
    backoff = Backoff(first_s=0.2, cap_s=10, chance=lambda: 1.0)
    assert [round(backoff.wait_s(failures), 3) for failures in (1, 2, 3, 6, 7, 100_000)] == [0.2, 0.4, 0.8, 6.4, 10, 10]


def test_those_that_failed_together_are_not_tried_again_together() -> None:
    backoff = Backoff(first_s=8, cap_s=60)
    waits = {backoff.wait_s(1) for _ in range(50)}
    assert len(waits) > 40
    assert all(4 <= wait <= 8 for wait in waits)


def test_what_fails_again_and_again_is_given_a_rest() -> None:
    backoff = Backoff(first_s=0.2, cap_s=30, rest_after=10, rest_s=300, chance=lambda: 1.0)
    assert [round(backoff.wait_s(failures)) for failures in (9, 10, 11, 100_000)] == [30, 300, 300, 300]
    assert Backoff(rest_after=10, chance=lambda: 0.0).wait_s(10) == 270.0
