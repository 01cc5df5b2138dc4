"""Cron schedules: the five fields of crontab(5) in a time zone, as the moments that they name.

    minute  hour  day of month  month  day of week    and @hourly @daily @midnight @weekly @monthly @yearly @annually

Fields take `*`, numbers, ranges, lists, steps, and names of months and days; Sunday is 0 and 7. Where both day fields
are restricted, either fits, as in cron. When clocks go forward, a time that is skipped comes as much later; when they
go back, an hour of the day that is named comes once, and with `*` each hour comes as often as it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MACROS: Mapping[str, str] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_AHEAD_DAYS = 366 * 28
"""How far a next moment is looked for: 29 February falls on a given day of the week once in 28 years."""


class CronInvalid(ValueError):
    """A schedule cannot be read; says which field, and what it may be."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Moments that come again and again."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    any_day: bool
    any_weekday: bool
    zone: ZoneInfo

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the moments after one, in order and in UTC."""
        # A day earlier: a time that clocks skipped may come on the next day.
        day = moment.astimezone(self.zone).date() - timedelta(days=1)
        last = moment.astimezone(UTC)
        idle = 0
        while idle < _AHEAD_DAYS and day < date.max:
            idle += 1
            if self._falls_on(day):
                for found in self._of_day(day):
                    if found > last:
                        yield found
                        last, idle = found, 0
            day += timedelta(days=1)

    def _falls_on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return by_day and by_weekday
        return by_day or by_weekday

    def _of_day(self, day: date) -> list[datetime]:
        found: set[datetime] = set()
        every_hour = len(self.hours) == 24
        for hour in self.hours:
            for minute in self.minutes:
                local = datetime.combine(day, time(hour, minute), self.zone)
                found.add(local.astimezone(UTC))
                if every_hour:
                    again = local.replace(fold=1).astimezone(UTC)
                    if again.astimezone(self.zone).replace(tzinfo=None) == local.replace(tzinfo=None):
                        found.add(again)
        return sorted(found)


def read_schedule(cron: str, timezone: str = "UTC") -> Schedule:
    """Read a schedule.

    Raises:
        CronInvalid: it cannot be read, or names no moment at all.
    """
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CronInvalid(f"there is no time zone {timezone!r}; write it as Europe/Berlin, or UTC") from None
    written = _MACROS.get(cron.strip().lower(), cron)
    fields = written.split()
    if len(fields) != 5:
        raise CronInvalid(
            f"{cron!r} has {len(fields)} fields; a schedule has five: minute, hour, day of month, month, day of week"
        )
    minute, hour, day, month, weekday = fields
    weekdays = _read("day of week", weekday, 0, 7, _DAYS, 0)
    schedule = Schedule(
        minutes=_read("minute", minute, 0, 59),
        hours=_read("hour", hour, 0, 23),
        days=_read("day of month", day, 1, 31),
        months=_read("month", month, 1, 12, _MONTHS, 1),
        weekdays=frozenset(number % 7 for number in weekdays),
        # As cron has it, a field that begins with a star does not restrict.
        any_day=day.startswith("*"),
        any_weekday=weekday.startswith("*"),
        zone=zone,
    )
    if next(schedule.after(datetime(2000, 1, 1, tzinfo=UTC)), None) is None:
        raise CronInvalid(f"{cron!r} names a day that never comes")
    return schedule


def _read(
    what: str, field: str, lowest: int, highest: int, names: tuple[str, ...] = (), first: int = 0
) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        if slash and (not step.isdecimal() or int(step) == 0):
            raise CronInvalid(f"the step of {what} {part!r} is no number above 0")
        if span == "*":
            begin, end = lowest, highest
        else:
            low, dash, high = span.partition("-")
            begin = _number(what, part, low, lowest, highest, names, first)
            end = _number(what, part, high, lowest, highest, names, first) if dash else highest if slash else begin
            if end < begin:
                if names is _DAYS and end == 0:
                    end = 7  # fri-sun
                else:
                    raise CronInvalid(f"{what} {part!r} runs backwards; write it as two ranges")
        found.update(range(begin, end + 1, int(step) if slash else 1))
    return frozenset(found)


def _number(what: str, part: str, word: str, lowest: int, highest: int, names: tuple[str, ...], first: int) -> int:
    if word.lower()[:3] in names and len(word) >= 3 and word.isalpha():
        return names.index(word.lower()[:3]) + first
    if word.isdecimal() and word.isascii() and lowest <= int(word) <= highest:
        return int(word)
    raise CronInvalid(f"{what} {part!r} is none; it is a number from {lowest} to {highest}, *, 1-5, */10 or 1,15")
