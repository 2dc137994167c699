"""Dates moved by a number of days that is the same for all dates of one subject, so that intervals stay as they were.

The number follows from the subject and a key for each domain and destination; it is never 0. Of whoever knows one true
date of a subject the others are not hidden: shifting is milder than encrypting.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

import polars as pl

from tasks.core.errors import Invalid

_ISO = r"^([0-9]{4})([-/.]?)([0-9]{2})[-/.]?([0-9]{2})((?:[T ].*)?)$"


def days_of(subjects: pl.Series, key: bytes, max_days: int) -> pl.Series:
    """The number of days for each subject, from -max_days to max_days without 0; null where nobody is named."""
    different = subjects.drop_nulls().unique()

    def days(subject: str) -> int:
        number = int.from_bytes(hmac.digest(key, subject.encode(), "sha256")[:8], "big") % (2 * max_days)
        return number - max_days if number < max_days else number - max_days + 1

    moved = pl.Series([days(subject) for subject in different.to_list()], dtype=pl.Int64)
    return subjects.replace_strict(different, moved, default=None, return_dtype=pl.Int64)


def shifted(values: pl.Series, days: pl.Series) -> pl.Series:
    """The dates, each moved by its number of days; null where that is null.

    Args:
        values: Dates, times, or texts and whole numbers that write dates as year, month, day; a time of day stays.
        days: As many numbers of days.

    Raises:
        Invalid: Some are no such dates; it says how many and shows none.
    """
    if isinstance(values.dtype, (pl.Date, pl.Datetime)):
        return _moved(values, days)
    if values.dtype.is_integer():
        return shifted(values.cast(pl.String), days).cast(values.dtype)
    texts = values.cast(pl.String)
    parts = texts.to_frame("v").select(
        *(pl.col("v").str.extract(_ISO, at).alias(name) for at, name in enumerate(("y", "mark", "m", "d", "rest"), 1))
    )
    date = parts.select(pl.concat_str("y", pl.lit("-"), "m", pl.lit("-"), "d").str.to_date(strict=False)).to_series()
    wrong = (date.is_null() & texts.is_not_null() & (texts != "")).sum()
    if wrong:
        raise Invalid(f"{wrong} values are no dates of year, month and day", "generalise or drop them instead")
    written = pl.DataFrame([_moved(date, days).alias("moved"), parts["mark"], parts["rest"]]).select(
        pl.concat_str(
            pl.col("moved").dt.strftime("%Y"),
            "mark",
            pl.col("moved").dt.strftime("%m"),
            "mark",
            pl.col("moved").dt.strftime("%d"),
            "rest",
        )
    )
    return written.to_series()


def moved_back(subjects: Sequence[str], dates: Sequence[str], key: bytes, max_days: int) -> list[str]:
    """The true dates of subjects, from the moved ones; what is empty stays so.

    Nothing tells whether key, subjects and days are those that the dates were moved by: others give other dates.

    Args:
        subjects: Whose dates they are, as the source has them.
        dates: The moved dates, as texts.
        key, max_days: As for `days_of`.

    Raises:
        Invalid: A subject is missing, or some are no dates of year, month and day.
    """
    missing = sum(1 for subject, date in zip(subjects, dates, strict=True) if date and not subject)
    if missing:
        raise Invalid(f"{missing} dates have no subject", "give the subject, a comma and the date on each line")
    days = days_of(pl.Series(subjects, dtype=pl.String), key, max_days)
    return shifted(pl.Series(dates, dtype=pl.String), -days).fill_null("").to_list()


def _moved(dates: pl.Series, days: pl.Series) -> pl.Series:
    both = pl.DataFrame([dates.alias("date"), days.alias("days")])
    return both.select(pl.col("date") + pl.duration(days=pl.col("days"))).to_series()
