"""``python -m lincei``: the ``lincei`` command, where its own script is not on the path."""

from __future__ import annotations

import sys

from lincei.cli import main

if __name__ == "__main__":
    sys.exit(main())
