"""``python -m medaug`` is the command ``medaug``."""

import sys

from medaug.cli import main

sys.exit(main())
