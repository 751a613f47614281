"""Executors carry out trainings side by side: a sweep's, and those of a multirun. `executor.py` says what one is.

`forked.py` has the workers of this machine, `ray_worker.py` those of a cluster. A worker knows nothing of Optuna, of
MLflow or of any disk: it is given a configuration, data and the last checkpoint, and gives back epochs and checkpoints.
"""
