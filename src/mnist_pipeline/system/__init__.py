"""The operating system: errors, files, locks, signals. Nothing here knows about runs."""
