"""Tasks on the workers of a Dask cluster. Dask is an optional extra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..core.errors import RunError, Setting, one_line
from ..core.packages import needed
from ..core.pip import pip_install
from .task import Done, PairTask, do_pair, failed_pair

#: Of a cluster on this machine. A task that brought a worker down is not tried on the next one; what a worker is at is
#: not looked at a hundred times a second; and memory is not given back to the system piece by piece, which by itself
#: took a third of the time (glibc; where one of the two is set, it does not find the other by itself).
_LOCAL = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.memory.monitor-interval": "2s",
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 1 << 27,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 1 << 25,
}
#: So long a scheduler may take to answer, in seconds.
_PATIENCE = 20


def done_by_dask(tasks: Sequence[PairTask], address: str, processes: int) -> Iterator[tuple[int, Done]]:
    """Does tasks on a Dask cluster; yields the number of each and what came of it, as they come.

    Its workers must see the files of the scans and the folder of results under the same paths, and have this program
    installed. A worker that does one task at a time needs one thread.

    Args:
        tasks: in the order in which they are begun.
        address: of the scheduler, as ``tcp://host:8786``; or ``local`` for a cluster on this machine.
        processes: workers of a local cluster.

    Raises:
        PackageError: Dask is missing.
        RunError: there is no scheduler at the address.
    """
    what, extra = "work on a Dask cluster", f"install it: {pip_install('dask[distributed]', extra='dask')}"
    distributed = needed("distributed", what, "dask[distributed]", extra)
    dask = needed("dask", what, "dask[distributed]", extra)
    local = None
    with dask.config.set(_LOCAL):
        try:
            if address == "local":
                local = distributed.LocalCluster(n_workers=processes, threads_per_worker=1, dashboard_address=None)
            client = distributed.Client(local or address, timeout=_PATIENCE)
        except (OSError, ValueError, TimeoutError) as error:
            if local is not None:
                local.close()
            problem = f"{address}: no Dask scheduler answers there ({one_line(error)})"
            raise RunError(problem, "start one, or correct the address", Setting("dask")) from error
    futures: dict[Any, int] = {}
    try:
        for number, task in enumerate(tasks):
            futures[client.submit(do_pair, task, pure=False, retries=0)] = number
        for future in distributed.as_completed(futures):
            number = futures[future]
            lost = future.exception()
            if lost is None:
                yield number, future.result()
                continue
            problem = f"its worker ended in the midst of the work ({one_line(lost)})"
            remedy = "run it again, on workers with more memory if that was short"
            yield number, Done(failed_pair(tasks[number].pair, problem, remedy), lasting=False)
    finally:
        client.cancel(list(futures))
        client.close()
        if local is not None:
            local.close()
