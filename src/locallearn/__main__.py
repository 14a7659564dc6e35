"""`python -m locallearn`."""

import sys

from locallearn.cli.main import main

sys.exit(main())
