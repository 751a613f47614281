"""The champion in use: predictions for files and over HTTP."""
