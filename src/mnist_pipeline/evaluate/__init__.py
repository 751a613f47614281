"""The evaluate stage: scores, tables and figures of a split."""
