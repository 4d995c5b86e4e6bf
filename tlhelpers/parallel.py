"""Work that is shared out: over the cores of this machine, or, given an address, to the workers of a Dask cluster."""

import contextlib
import warnings
from concurrent.futures import ProcessPoolExecutor

import joblib

from tlhelpers import devices, files

SMALL_WORK = 200  # items below which starting processes costs more than it gains


def map_over_cores(function, items, *, description, workers=None):
    """Maps over processes, or in this one when the work is small; shows progress.

    Args:
        function: callable of one item, picklable.
        items: sequence.
        description: str. What the progress bar says.
        workers: int or None. Processes to use; None means one per core.

    Yields:
        The results, in order.
    """
    workers = workers or devices.available_cores()
    if workers == 1 or len(items) < SMALL_WORK:
        yield from files.progress(map(function, items), description=description, total=len(items))
        return
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(function, items, chunksize=32)
        yield from files.progress(results, description=description, total=len(items))


@contextlib.contextmanager
def share_out(jobs=None, cluster=None):
    """Sends what joblib runs inside of the block to local processes, or to a cluster while its client is open.

    Args:
        jobs: int or None. Processes on this machine; None means one per core.
        cluster: str or None. The address of a Dask scheduler, such as `"tcp://host:8786"`; its workers need the
            project's folder at the same place.

    Yields:
        int or None. Threads that each piece of work should use, see `devices.limit_threads`; None means what there is.
    """
    if cluster is None:
        cores = devices.available_cores()
        jobs = jobs or cores
        with warnings.catch_warnings(), joblib.parallel_config(backend="loky", n_jobs=jobs):
            # joblib replaces a worker whose memory has grown, and loses nothing
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
            yield None if jobs == 1 else max(1, cores // jobs)
        return
    import distributed

    with distributed.Client(cluster), joblib.parallel_config(backend="dask", n_jobs=-1):
        yield None
