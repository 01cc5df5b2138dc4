"""`python -m interhub.hub.cli`: the command where no script of it is on the path."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
