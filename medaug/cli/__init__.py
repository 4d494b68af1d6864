"""The command line: each command calls one function of the same name."""

from medaug.cli.console import app
from medaug.cli.main import main

__all__ = ["app", "main"]
