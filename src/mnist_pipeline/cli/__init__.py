"""The commands, one file each or one for those that belong together; `cli.py` lists them."""
