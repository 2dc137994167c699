"""Where the shards of a move run: in threads of this process, in processes of this machine, or on others by Dask.

Inside a flow a shard is a Prefect task run that Prefect's own task runner carries out; the `lintas` command gives the
same work to the same kind of pool without Prefect. What is given away holds no secret: stores, keys and journals are
opened where the shard runs, from that machine's own `lintas.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from multiprocessing import get_context
from typing import Any, TypeVar, cast

from tasks.core.errors import Retryable
from tasks.settings import ShardSettings
from tasks.steps import Step, in_flow

R = TypeVar("R")

_CONNECT_S = 15


@contextmanager
def shards_run(step: Step[..., R], where: ShardSettings, *, here: bool) -> Generator[Callable[..., R]]:
    """What runs a step with the given arguments and waits for it; it may be called from several threads.

    Args:
        step: What to run; its arguments and what it returns can be pickled unless it runs here.
        where: By what, and how many at once.
        here: Whether it runs in this process whatever the runner is.

    Raises:
        Retryable: The scheduler does not answer, or the machines that a shard was given to were lost, four times.
    """
    around = copy_context()
    if here:
        yield lambda **arguments: around.copy().run(step, **arguments)
        return
    with ExitStack() as held:
        begin = _by_prefect(step, where, held) if in_flow() else _by_pool(step, where, held)

        def call(**arguments: Any) -> R:
            future = around.copy().run(begin, arguments)
            try:
                return cast("R", future.result())
            except _lost(where) as error:
                raise Retryable(
                    f"a shard was lost with those that carried it ({type(error).__name__})",
                    "see that the machines stay up, then run the move again: it continues",
                ) from error

        yield call


def _by_prefect(step: Step[..., R], where: ShardSettings, held: ExitStack) -> Callable[[dict[str, Any]], Any]:
    runner: Any
    if where.runner == "processes":
        from prefect.task_runners import ProcessPoolTaskRunner

        runner = held.enter_context(ProcessPoolTaskRunner(max_workers=where.at_once))
    else:
        from prefect_dask import DaskTaskRunner

        runner = DaskTaskRunner(address=where.scheduler, client_kwargs={"timeout": _CONNECT_S})
        runner = held.enter_context(runner)
        _connected(lambda: runner.client, where)
    return lambda arguments: runner.submit(step.task, arguments)


def _by_pool(step: Step[..., R], where: ShardSettings, held: ExitStack) -> Callable[[dict[str, Any]], Any]:
    if where.runner == "processes":
        pool: Executor = held.enter_context(ProcessPoolExecutor(where.at_once, mp_context=get_context("spawn")))
        return lambda arguments: pool.submit(step, **arguments)
    from distributed import Client

    client: Any = held.enter_context(
        _connected(lambda: Client(where.scheduler, timeout=_CONNECT_S, set_as_default=False), where)
    )
    return lambda arguments: client.submit(step, pure=False, **arguments)


def _connected(connect: Callable[[], Any], where: ShardSettings) -> Any:
    try:
        return connect()
    except OSError as error:
        raise Retryable(
            f"the Dask scheduler at {where.scheduler} does not answer",
            "start it ('dask scheduler'), or correct mover.shards.scheduler",
        ) from error


def _lost(where: ShardSettings) -> tuple[type[BaseException], ...]:
    """What says that those who carried are gone, and nothing of the work."""
    if where.runner == "processes":
        return (BrokenProcessPool,)
    from distributed import CancelledError as Cancelled
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    return KilledWorker, CommClosedError, Cancelled, CancelledError
