"""The command line: each command calls one function of the same name."""

from medaug.cli.app import app, main

__all__ = ["app", "main"]
