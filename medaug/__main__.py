"""``python -m medaug`` is the command ``medaug``."""

from medaug.cli import main

main()
