"""`python -m locallearn`."""

import sys

from locallearn.cli import main

sys.exit(main())
