"""`python -m guardreasoner`."""

import sys

from guardreasoner.cli.main import main

sys.exit(main())
