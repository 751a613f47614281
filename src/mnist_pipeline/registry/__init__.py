"""The registry: which version of a model is the champion, why, and since when."""
