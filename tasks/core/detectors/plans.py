"""Regular expressions over digits as automata: a table that a number's digits are walked through.

Numbering plans (see `phones`) are such expressions. Neither numpy nor the kernel knows regular expressions, and both
walk a table at a few nanoseconds a digit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tasks.core.detectors.checks import Digits, Mask

Automaton = npt.NDArray[np.int32]
"""A row of eleven a state: the next state by the digit, and whether a number may end here. State 0 is for what fits no
longer, state 1 is the first."""

ANY = 0x3FF
"""All ten digits, as bits."""


def accepted(plan: Automaton, digits: Digits) -> Mask:
    """Which numbers, one a line, an automaton takes."""
    state = np.ones(len(digits), np.int32)
    for at in range(digits.shape[1]):
        state = plan[state, digits[:, at]]
    return plan[state, 10] > 0


def automaton(pattern: str) -> Automaton:
    """The automaton of a regular expression over digits.

    It is made by Glushkov's construction (V. M. Glushkov, 1961): every place of the expression where a digit stands is
    a bit, and knows the places that may come next. A state is a set of places.

    Args:
        pattern: Digits, `[2-57]`, `(?:...)`, `|`, `?`, `{3}` and `{2,4}`; nothing else.

    >>> plan = automaton("0(?:[2-5]|9{2})?")
    >>> [bool(accepted(plan, np.array([number], np.uint8))[0]) for number in ([0], [0, 3], [0, 9], [0, 9, 9])]
    [True, True, False, True]
    """
    places: list[tuple[int, int]] = []  # The digits of each place, and the places behind it, as bits.
    end = 1
    first = _Reader(pattern, places).alternatives()(end)
    numbers = {0: 0, first: 1}
    rows = [[0] * 11]
    waiting = [first]
    for state in waiting:
        behind = [0] * 10
        left = state >> 1
        while left:
            digits, following = places[(left & -left).bit_length() - 1]
            left &= left - 1
            for digit in range(10):
                if digits >> digit & 1:
                    behind[digit] |= following
        for each in behind:
            if each not in numbers:
                numbers[each] = len(numbers)
                waiting.append(each)
        rows.append([*(numbers[each] for each in behind), state & end])
    return np.array(rows, np.int32)


_Places = Callable[[int], int]
"""Part of an expression: given the places behind it, those at which it may begin. Called again it is a copy."""


class _Reader:
    """Reads an expression from left to right."""

    def __init__(self, pattern: str, places: list[tuple[int, int]]) -> None:
        self._pattern = pattern
        self._places = places
        self._at = 0

    def alternatives(self) -> _Places:
        """What stands up to a closing bracket or the end."""
        parts = [self._sequence()]
        while self._takes("|"):
            parts.append(self._sequence())

        def begin(behind: int) -> int:
            together = 0
            for part in parts:
                together |= part(behind)
            return together

        return begin

    def _sequence(self) -> _Places:
        parts: list[_Places] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            parts.append(self._repeated())

        def begin(behind: int) -> int:
            for part in reversed(parts):
                behind = part(behind)
            return behind

        return begin

    def _repeated(self) -> _Places:
        part = self._single()
        least = most = 1
        if self._takes("?"):
            least = 0
        elif self._takes("{"):
            counts = self._until("}").split(",")
            least, most = int(counts[0]), int(counts[-1])

        def begin(behind: int) -> int:
            after = behind
            for left in range(most, 0, -1):
                behind = part(behind) | (after if left > least else 0)
            return behind

        return begin

    def _single(self) -> _Places:
        if self._takes("(?:"):
            inside = self.alternatives()
            self._until(")")
            return inside
        if self._takes("["):
            digits = _digits(self._until("]"))
        else:
            digits = _digits(self._pattern[self._at])
            self._at += 1
        return lambda behind: self._place(digits, behind)

    def _place(self, digits: int, behind: int) -> int:
        self._places.append((digits, behind))
        return 1 << len(self._places)

    def _takes(self, mark: str) -> bool:
        found = self._pattern.startswith(mark, self._at)
        self._at += len(mark) * found
        return found

    def _until(self, mark: str) -> str:
        start = self._at
        self._at = self._pattern.index(mark, start) + len(mark)
        return self._pattern[start : self._at - len(mark)]


def _digits(text: str) -> int:
    """The digits of a class such as `2-57`, as bits."""
    bits, at = 0, 0
    while at < len(text):
        last = at + 2 * (text[at + 1 : at + 2] == "-")
        for digit in range(int(text[at]), int(text[last]) + 1):
            bits |= 1 << digit
        at = last + 1
    return bits
