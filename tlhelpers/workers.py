"""Who does work that is shared out: processes on this machine, or, given an address, the workers of a Dask cluster."""

import contextlib
import warnings

import joblib

from tlhelpers import devices


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
