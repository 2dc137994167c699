"""What the probes of all providers share: asking once, reading a bucket, and saying what cannot be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tasks.core.cloud import Unseen
from tasks.core.errors import Denied, LintasError, NotFound
from tasks.core.ports import Store

ABSENT = "lintas-doctor"
"""The name of a thing that is not there: asking for it shows a permission and touches nothing."""

T = TypeVar("T")


def remembered(ask: Callable[[], T]) -> Callable[[], T]:
    """A call that is made once, however many probes build on it; an error is remembered as an answer is."""
    answers: list[T] = []
    errors: list[LintasError] = []

    def answer() -> T:
        if errors:
            raise errors[0]
        if not answers:
            try:
                answers.append(ask())
            except LintasError as error:
                errors.append(error)
                raise
        return answers[0]

    return answer


def unseen(permission: str, why: str = "") -> Unseen:
    """A permission to write, which only writing would show; `why` says what would have shown it and did not."""
    because = f" ({why})" if why else ""
    return Unseen(f"{permission} cannot be seen without writing{because}", "the first use will tell")


def not_imitated(permission: str) -> Unseen:
    """The service does not know the call."""
    return Unseen(
        f"{permission} cannot be seen: what answers does not know the call that would show it",
        "a local twin does not imitate it; ask the real cloud",
    )


class BucketProbes:
    """Looks at one bucket by listing it, and at its first object by its description.

    Args:
        open_store: Opens the bucket.
    """

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._store = remembered(open_store)
        self._first = remembered(self._look_for_first)

    def listing(self) -> str:
        """Whether the bucket can be listed. Unseen: there is no such bucket, which stores say to anybody."""
        try:
            first = self._first()
        except NotFound as error:
            raise Unseen(
                f"it cannot be seen: {error.what}", "Lintas creates its work bucket with the first job"
            ) from error
        return f"bucket '{self._store().bucket}' can be listed{'' if first else '; it is empty'}"

    def reading(self) -> str:
        """Whether an object can be read. Unseen: none is known."""
        try:
            first = self._first()
        except (Denied, NotFound) as error:
            raise Unseen(
                "it cannot be seen: no object is known to try it with", "see what is said of listing"
            ) from error
        if first is None:
            raise Unseen("it cannot be seen: the bucket is empty", "look again when it holds an object")
        self._store().head(first)
        return f"an object of bucket '{self._store().bucket}' can be read"

    def exists(self) -> bool:
        """Whether the bucket is there; LintasError when that is not known."""
        try:
            self._first()
        except NotFound:
            return False
        return True

    def _look_for_first(self) -> str | None:
        info = next(iter(self._store().list("")), None)
        return info.key if info else None
