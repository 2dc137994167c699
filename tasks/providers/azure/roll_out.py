"""Roll-outs that take the service minutes, one step after another, while the caller does something else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tasks.core.errors import LintasError, Retryable

Step = Callable[[], bool]
"""Makes the next step that is due; true when none is left."""

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_LONGEST_S = 3600.0


class RollOuts:
    """The roll-outs under way in this process, one a name at most.

    They end with the process: whoever asks for the same again goes on from where the service stands.

    Args:
        on_failure: Told the name and the error of a roll-out that cannot go on.
    """

    def __init__(self, on_failure: Callable[[str, LintasError], None]) -> None:
        self._on_failure = on_failure
        self._steps: dict[str, Step] = {}
        self._locks: dict[str, threading.RLock] = {}
        self._guard = threading.Lock()

    def exclusively(self, name: str) -> threading.RLock:
        """The lock under which anything is changed for this name."""
        with self._guard:
            return self._locks.setdefault(name, threading.RLock())

    def begin(self, name: str, step: Step) -> None:
        """Make the first step now, and the others as they become due; what went on for this name before is dropped.

        Raises:
            LintasError: The first step failed; nothing goes on.
        """
        with self.exclusively(name):
            follows = name in self._steps
            self._steps.pop(name, None)
            if step():
                return
            self._steps[name] = step
            # A thread that follows this name already goes on with the new step.
            if not follows:
                threading.Thread(target=self._follow, args=(name,), name=f"roll-out {name}", daemon=True).start()

    def stop(self, name: str) -> None:
        """Make no further step for this name."""
        with self.exclusively(name):
            self._steps.pop(name, None)

    def _follow(self, name: str) -> None:
        pause_s, give_up = _FIRST_PAUSE_S, time.monotonic() + _LONGEST_S
        while True:
            time.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 1.2)
            with self.exclusively(name):
                step = self._steps.get(name)
                if step is None:
                    return
                try:
                    done = step()
                except Retryable as error:
                    done = time.monotonic() > give_up
                    if done:
                        self._on_failure(name, error)
                except LintasError as error:
                    done = True
                    self._on_failure(name, error)
                if done:
                    del self._steps[name]
                    return
