"""``python -m rvtrain``: the command line."""

import sys

from rvtrain.cli import main

if __name__ == "__main__":
    sys.exit(main())
