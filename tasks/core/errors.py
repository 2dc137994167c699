"""Errors that say what to do next.

Every failure that leaves a provider, the gate or the planner is one of these, so that a caller decides by the
class alone: try the same place again, try the next offer, ask a person, quarantine, or stop. What is not
understood is `Terminal`: a gate must not guess.

The text of an error is one sentence that names the thing and the mend. It never carries a secret or a value
found in somebody's data.
"""

from __future__ import annotations

from typing import ClassVar


class LintasError(Exception):
    """The base of all errors that Lintas raises on purpose.

    Args:
        what: What happened to which thing, without a final full stop: "bucket 'raw' does not exist on aws".
        mend: What the reader should do, in the imperative: "create it or correct the URI".
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(what, mend)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}; {self.mend}." if self.mend else f"{self.what}."


class Retryable(LintasError):
    """The same call at the same place may succeed later: throttling, a cut connection, a server that restarts.

    Callers wait `retry_after_s` seconds (or their own back-off when it is None) and try again, a bounded number
    of times; what remains after that reaches the user as 'unreachable'.
    """

    exit_code = 6

    def __init__(self, what: str, mend: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(what, mend)
        self.retry_after_s = retry_after_s


class Stockout(LintasError):
    """This offer has no capacity or no quota now; the caller goes on to the next offer.

    Args:
        history: What was tried before and how it ended, oldest first, one short line each.
    """

    exit_code = 5

    def __init__(self, what: str, mend: str = "", *, history: tuple[str, ...] = ()) -> None:
        super().__init__(what, mend)
        self.history = history


class PolicyViolation(LintasError):
    """The policy does not allow this; a person decides. `reasons` name entities and places, never values."""

    exit_code = 3

    def __init__(self, what: str, mend: str = "", *, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(what, mend)
        self.reasons = reasons


class IntegrityError(LintasError):
    """Bytes are not what they were said to be. The caller quarantines the object and tells someone."""

    exit_code = 4


class Terminal(LintasError):
    """Trying again cannot help. Everything that is not understood is Terminal."""


class Invalid(Terminal):
    """Wrong usage or configuration: the caller corrects it."""

    exit_code = 2


class NotFound(Terminal):
    """The thing that was named does not exist (a bucket, an object, a job, a model version)."""

    exit_code = 6


class Denied(Terminal):
    """The credentials are missing, wrong, or lack a permission."""

    exit_code = 6


class PreconditionFailed(Terminal):
    """A conditional read or write met another version than it asked for: re-read, plan again."""

    exit_code = 4
