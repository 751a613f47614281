"""Executors carry out the trainings of a sweep. `executor.py` says what one is; `local.py` trains on this machine."""
