"""YAML and the command line, turned into checked dataclasses."""
