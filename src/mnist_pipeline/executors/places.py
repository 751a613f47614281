"""Where workers are: on this machine, or on a cluster, as `executor` says."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mnist_pipeline.config.sections import ExecutorConfig, ExecutorName

if TYPE_CHECKING:  # this module is imported first, to begin what takes long: the others can wait
    from mnist_pipeline.executors.pool import Places
    from mnist_pipeline.system.patience import OnWait


def begin(config: ExecutorConfig) -> None:
    """Begin what takes seconds, before this process imports its libraries and sets handlers of signals.

    Raises:
        UserError: The cluster cannot be reached, or the process that workers are forked from cannot be started.
    """
    if config.name is ExecutorName.local:
        from mnist_pipeline.executors import forkserver

        forkserver.context()  # it imports TensorFlow while this process imports everything else
    else:
        from mnist_pipeline.executors import ray_cluster

        ray_cluster.connect(config)


def open_places(
    config: ExecutorConfig,
    *,
    modules: Sequence[str],
    num_workers: int | None,
    on_wait: "OnWait",
    on_other_cpu: Callable[[str], None],
) -> "Places":
    """Return the places for workers.

    Args:
        config: Says where they are, and what each worker takes.
        modules: That the configuration names: the user's own are sent to the nodes.
        num_workers: How many; None: one for each usable core, or as many as the cluster has room for.
        on_wait: See `patience.OnWait`.
        on_other_cpu: Told once of each node whose processor may compute other bits.

    Raises:
        UserError: The cluster is gone.
    """
    if config.name is ExecutorName.local:
        from mnist_pipeline.executors.local import LocalPlaces
        from mnist_pipeline.system.versions import count_usable_cores

        return LocalPlaces(num_workers=num_workers or count_usable_cores())
    from mnist_pipeline.executors.ray_cluster import Cluster

    return Cluster(config, modules=modules, num_workers=num_workers, on_wait=on_wait, on_other_cpu=on_other_cpu)
