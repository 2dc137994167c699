"""`step`: a function that is a Prefect task inside a flow run, and just itself outside.

Inside a flow, names, retries, timeouts and logs are Prefect's. The `lintas` command and the tests call the same
functions with no Prefect server anywhere; retries of single requests happen below, in `tasks.core`.

Nothing here loads Prefect, which takes a second and 70 MB: who is inside a flow run has loaded it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from tasks.core.errors import Retryable

if TYPE_CHECKING:
    from prefect.context import FlowRunContext
    from prefect.states import State

P = ParamSpec("P")
R = TypeVar("R")


class Step(Generic[P, R]):
    """A function that is a Prefect task run inside a flow, and just itself outside.

    It travels to other processes by its name. Its `task` is for what runs tasks elsewhere (`tasks.shards`).
    """

    def __init__(self, function: Callable[P, R], options: Mapping[str, Any]) -> None:
        self._function, self._options = function, options
        functools.update_wrapper(self, function)

    @functools.cached_property
    def task(self) -> Any:
        """The Prefect task."""
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        options: dict[str, Any] = {**self._options, "cache_policy": NO_CACHE}
        return task(self._function, **options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.task(*args, **kwargs) if in_flow() else self._function(*args, **kwargs)

    def __reduce__(self) -> str:
        return self._function.__qualname__


def step(
    *, name: str, retries: int = 0, timeout_s: float | None = None, run_name: str | None = None
) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Make a function a step.

    Args:
        name: What the Prefect UI calls it.
        retries: How often it may run again after `Retryable`, with exponential back-off and jitter. Other errors
            end it at once.
        timeout_s: Seconds after which Prefect gives it up.
        run_name: Template for the run's name from the parameters, such as "scan {uri}".
    """
    options: dict[str, Any] = {
        "name": name,
        "timeout_seconds": timeout_s,
        "task_run_name": run_name or name,
        "persist_result": False,
    }
    if retries:
        options |= {
            "retries": retries,
            "retry_delay_seconds": [2.0 * 2**attempt for attempt in range(retries)],
            "retry_jitter_factor": 0.5,
            "retry_condition_fn": _is_retryable,
        }

    return lambda function: Step(function, options)


def in_flow() -> bool:
    """Whether the caller runs inside a Prefect flow run."""
    return _context() is not None


def flow_run_id() -> str | None:
    """The id of the Prefect flow run that the caller runs in, or None outside."""
    context = _context()
    return str(context.flow_run.id) if context is not None and context.flow_run is not None else None


def say(message: str) -> None:
    """One line for people: to the run's log inside a flow, to standard error outside."""
    if in_flow():
        from prefect.logging import get_run_logger

        get_run_logger().info(message)
    else:
        print(message, file=sys.stderr)


def _context() -> FlowRunContext | None:
    if "prefect.context" not in sys.modules:
        return None
    from prefect.context import FlowRunContext

    return FlowRunContext.get()


def _is_retryable(_task: object, _run: object, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), Retryable)
