"""Looking at runs: many in one table, two side by side, one in a report."""
