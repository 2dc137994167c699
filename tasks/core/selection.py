"""Which objects of a dataset are meant: include and exclude globs.

| in a pattern | stands for |
| --- | --- |
| `*` | any characters of one part of a path |
| `**` | any characters, also across parts |
| `?` | one character of one part |
| `[abc]`, `[!abc]` | one of these characters, or none of them |

A pattern without a `/` is about the last part of a path, wherever the object is; one with a `/` about the whole path
(a leading `/` is for patterns about the top level).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.core.errors import Invalid


@dataclass(frozen=True, slots=True)
class Selection:
    """Objects that match a pattern of `include` (all, without any) and none of `exclude`.

    >>> only = Selection.of(["*.parquet"], ["tmp/**"])
    >>> [path for path in ("a.parquet", "x/b.parquet", "c.csv", "tmp/d.parquet") if only.takes(path)]
    ['a.parquet', 'x/b.parquet']
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    _included: re.Pattern[str] | None = field(default=None, repr=False, compare=False)
    _excluded: re.Pattern[str] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> Selection:
        """The selection of these patterns. Raises `Invalid` naming a pattern that is none."""
        take, leave = tuple(include), tuple(exclude)
        return cls(take, leave, _any_of(take), _any_of(leave))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Selection:
        """The inverse of `as_dict`; other keys are no matter."""
        return cls.of(data.get("include", ()), data.get("exclude", ()))

    def as_dict(self) -> dict[str, list[str]]:
        """The patterns by their kind; nothing when everything is meant."""
        kinds = {"include": list(self.include), "exclude": list(self.exclude)}
        return {kind: patterns for kind, patterns in kinds.items() if patterns}

    def __bool__(self) -> bool:
        """Whether it leaves anything out."""
        return bool(self.include or self.exclude)

    def __str__(self) -> str:
        return " ".join([*(f"+{each}" for each in self.include), *(f"-{each}" for each in self.exclude)])

    def takes(self, path: str) -> bool:
        """Whether the object at this path is meant."""
        if self._included is not None and not self._included.fullmatch(path):
            return False
        return self._excluded is None or not self._excluded.fullmatch(path)


def _any_of(globs: tuple[str, ...]) -> re.Pattern[str] | None:
    for glob in globs:
        try:
            re.compile(_regex(glob))
        except re.error as error:
            raise Invalid(f"'{glob}' is not a pattern ({error.msg})", "correct what stands in brackets") from None
    return re.compile("|".join(f"(?:{_regex(glob)})" for glob in globs), re.DOTALL) if globs else None


def _regex(glob: str) -> str:
    whole, anywhere = glob.removeprefix("/"), "/" not in glob
    if not whole:
        raise Invalid(f"'{glob}' is not a pattern", "write one such as *.parquet or raw/**")
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", whole, re.DOTALL)
    return ("(?:.*/)?" if anywhere else "") + "".join(map(_translated, tokens))


def _translated(token: str) -> str:
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in special:
        return special[token]
    if token.startswith("[") and len(token) > 1:
        negated, body = token.startswith("[!"), token[2 if token.startswith("[!") else 1 : -1]
        escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", body)
        return f"(?!/)[{'^' if negated else ''}{escaped}]"
    return re.escape(token)
