"""The terminal: one file a command. `commands.py` lists them and runs the one that the arguments name."""

from mnist_pipeline.cli.commands import COMMANDS, main, run

__all__ = ["COMMANDS", "main", "run"]
