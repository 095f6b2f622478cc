"""The command line as ``python -m ranker``."""

import sys

from ranker.cli import main

sys.exit(main())
