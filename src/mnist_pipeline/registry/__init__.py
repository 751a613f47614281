"""Which version of a model is the champion, and why."""
