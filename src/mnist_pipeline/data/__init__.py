"""The data stage: find a data set, verify it, split it."""
