"""The record of a run, and the MLflow store that keeps it."""
