"""Reading a mapping that a person wrote (YAML) into typed values, so that every mistake is named by its key.

>>> fields = Fields({"count": 2}, "requirements")
>>> fields.integer("count"), fields.number("memory_gib", default=0.0)
(2, 0.0)
>>> fields.finish()
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from typing import Any, cast

from tasks.core.errors import Invalid


class Fields:
    """One mapping, read key by key; `finish` refuses whatever was not asked for.

    Args:
        data: What was written.
        where: The mapping's own key, for messages ("training.requirements").

    Raises:
        Invalid: `data` is not a mapping with text keys. All methods raise it, naming the key, for a missing key
            without a default or a value of another type.
    """

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, Mapping):
            raise Invalid(f"{where} is {_kind(data)} where a mapping is needed", "write it as keys and values")
        self.where = where
        self._data = {str(key): value for key, value in cast("Mapping[object, object]", data).items()}
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self._data.get(key) is not None

    def key(self, key: str) -> str:
        """The full name of a key, for messages."""
        return f"{self.where}.{key}"

    def raw(self, key: str, default: object = ...) -> Any:
        """The value as it was written; a key without a value counts as absent."""
        self._asked.add(key)
        value = self._data.get(key)
        if value is not None:
            return value
        if default is ...:
            raise Invalid(f"{self.key(key)} is missing", "add it")
        return default

    def text(self, key: str, default: object = ...) -> str:
        """A text that is not empty."""
        value = self.raw(key, default)
        if not isinstance(value, str) or (not value and value is not default):
            raise self._wrong(key, value, "a text")
        return value

    def number(self, key: str, default: object = ..., *, minimum: float = 0.0) -> float:
        """A finite number of at least `minimum`."""
        value = self.raw(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self._wrong(key, value, "a number")
        if value < minimum:
            raise Invalid(f"{self.key(key)} is {value:g}", f"give a number of at least {minimum:g}")
        return float(value)

    def optional_number(self, key: str, *, minimum: float = 0.0) -> float | None:
        """A finite number of at least `minimum`, or None when the key is absent."""
        return self.number(key, minimum=minimum) if self._present(key) else None

    def integer(self, key: str, default: object = ..., *, minimum: int = 0) -> int:
        """A whole number of at least `minimum`."""
        value = self.number(key, default, minimum=minimum)
        if not value.is_integer():
            raise self._wrong(key, value, "a whole number")
        return int(value)

    def flag(self, key: str, default: object = ...) -> bool:
        """True or false."""
        value = self.raw(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def day(self, key: str) -> date:
        """A date, written YYYY-MM-DD."""
        value = self.raw(key)
        if isinstance(value, str):
            try:
                value = date.fromisoformat(value)
            except ValueError as error:
                raise self._wrong(key, value, "a date (YYYY-MM-DD)") from error
        if not isinstance(value, date):
            raise self._wrong(key, value, "a date (YYYY-MM-DD)")
        return value

    def texts(self, key: str, default: object = ...) -> tuple[str, ...]:
        """A list of texts."""
        items = self.items(key, default)
        if not all(isinstance(item, str) and item for item in items):
            raise self._wrong(key, items, "a list of texts")
        return tuple(cast("str", item) for item in items)

    def items(self, key: str, default: object = ...) -> tuple[object, ...]:
        """A list of anything."""
        value = self.raw(key, default)
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self._wrong(key, value, "a list")
        return tuple(cast("Sequence[object]", value))

    def fields(self, key: str) -> Fields:
        """A mapping under this key; an empty one when the key is absent."""
        return Fields(self.raw(key, {}), self.key(key))

    def names(self) -> tuple[str, ...]:
        """All keys as written, for mappings whose keys are names that the reader chose."""
        self._asked.update(self._data)
        return tuple(self._data)

    def finish(self) -> None:
        """Raise `Invalid` when the mapping has keys that nobody asked for, naming the likely intended one."""
        for unknown in self._data.keys() - self._asked:
            close = get_close_matches(unknown, sorted(self._asked), n=1)
            mend = f"did you mean '{close[0]}'" if close else f"use one of {', '.join(sorted(self._asked))}"
            raise Invalid(f"{self.key(unknown)} is not known", mend)

    def _present(self, key: str) -> bool:
        self._asked.add(key)
        return key in self

    def _wrong(self, key: str, value: object, wanted: str) -> Invalid:
        return Invalid(f"{self.key(key)} is {_kind(value)}", f"write {wanted}")


def _kind(value: object) -> str:
    if value is None:
        return "empty"
    if value == "":
        return "an empty text"
    names = {"str": "a text", "bool": "true or false", "int": "a number", "float": "a number", "list": "a list"}
    return names.get(type(value).__name__, "a mapping" if isinstance(value, Mapping) else f"a {type(value).__name__}")
