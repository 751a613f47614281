"""What people read about runs: compare, diff, report."""
