"""Cron schedules: which moments they name, also where clocks change."""

from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interhub.hub.triggers.cron import CronInvalid, read_schedule


def moments(cron: str, timezone: str, after: str, count: int) -> list[str]:
    found = islice(read_schedule(cron, timezone).after(datetime.fromisoformat(after)), count)
    return [moment.strftime("%m-%d %H:%M") for moment in found]


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("*/20 9 * * *", "2026-03-01T09:05Z", ["03-01 09:20", "03-01 09:40", "03-02 09:00"]),
        ("0 3 * * mon-fri", "2026-11-20T04:00Z", ["11-23 03:00", "11-24 03:00"]),
        ("0 0 * * 7", "2026-11-21T00:00Z", ["11-22 00:00", "11-29 00:00"]),
        ("0 0 * * fri-sun", "2026-11-19T12:00Z", ["11-20 00:00", "11-21 00:00", "11-22 00:00", "11-27 00:00"]),
        ("0 0 13 * 5", "2026-11-01T00:00Z", ["11-06 00:00", "11-13 00:00", "11-20 00:00"]),
        ("0 0 29 2 *", "2026-01-01T00:00Z", ["02-29 00:00"]),
        ("5/20 0 1 jan,JUL *", "2026-01-02T00:00Z", ["07-01 00:05", "07-01 00:25", "07-01 00:45", "01-01 00:05"]),
        ("@hourly", "2026-01-01T10:00Z", ["01-01 11:00", "01-01 12:00"]),
    ],
)
def test_a_schedule_names_its_moments(cron: str, after: str, expected: list[str]) -> None:
    assert moments(cron, "UTC", after, len(expected)) == expected


def test_a_time_that_clocks_skip_comes_as_much_later_and_one_they_repeat_comes_once() -> None:
    # Berlin: on 29 March 2026 2:00 becomes 3:00; on 25 October 3:00 becomes 2:00. The moments are in UTC.
    assert moments("30 2 * * *", "Europe/Berlin", "2026-03-28T02:00Z", 2) == ["03-29 01:30", "03-30 00:30"]
    assert moments("30 2 * * *", "Europe/Berlin", "2026-10-24T02:00Z", 2) == ["10-25 00:30", "10-26 01:30"]


def test_every_hour_is_every_hour_also_on_the_day_that_has_25_of_them() -> None:
    hours = moments("0 * * * *", "Europe/Berlin", "2026-10-24T21:30Z", 26)
    assert hours[0] == "10-24 22:00"
    assert len(set(hours)) == 26
    assert hours[-1] == "10-25 23:00"
    assert moments("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15Z", 3) == [
        "03-29 00:30",
        "03-29 01:00",
        "03-29 01:30",
    ]


@pytest.mark.parametrize(
    ("cron", "timezone", "told"),
    [
        ("* * * *", "UTC", "has 4 fields"),
        ("61 * * * *", "UTC", "minute '61'"),
        ("* * * * funday", "UTC", "day of week 'funday'"),
        ("*/0 * * * *", "UTC", "step of minute"),
        ("30-10 * * * *", "UTC", "runs backwards"),
        ("0 0 31 2 *", "UTC", "never comes"),
        ("0 0 * * *", "Europe/Berln", "no time zone 'Europe/Berln'"),
        ("0 0 * * *", "../../etc/passwd", "no time zone"),
    ],
)
def test_what_is_no_schedule_is_refused_by_its_field(cron: str, timezone: str, told: str) -> None:
    with pytest.raises(CronInvalid, match=told):
        read_schedule(cron, timezone)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 -- as hypothesis wants
    st.sampled_from(["* * * * *", "7 */5 * * *", "0 2 * * 0", "30 2 1,15 * *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
)
def test_moments_are_in_order_and_going_on_from_one_gives_the_next(after: datetime, cron: str, timezone: str) -> None:
    schedule = read_schedule(cron, timezone)
    found = list(islice(schedule.after(after), 4))
    assert found[0] > after
    assert found == sorted(set(found))
    assert list(islice(schedule.after(found[0]), 3)) == found[1:]
