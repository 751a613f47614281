"""An experiment-tracking pipeline, composed by Hydra and tracked in MLflow.

Importing it changes nothing in the process.
"""
