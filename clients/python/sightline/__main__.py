"""`python -m sightline`: the `sightline` command."""

import os
import sys

if __name__ == "__main__":
    # As `python -P` does: the folder that one stands in may hold a `clients.py` or a `serving/` of its own.
    sys.path[:] = [folder for folder in sys.path if folder not in ("", os.getcwd())]
    from sightline.cli import main

    main()
