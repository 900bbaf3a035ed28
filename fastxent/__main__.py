"""The ``fastxent`` program, also as ``python -m fastxent``: from its first import on, an interrupt is one line."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Import the command line and run it."""
    try:
        from fastxent.cli import main

        main()
    except KeyboardInterrupt:  # while it is being imported; from then on the command line answers itself
        from fastxent.leave import INTERRUPTED, leave

        print("fastxent: interrupted; nothing was left half-written", file=sys.stderr)
        leave(INTERRUPTED)


if __name__ == "__main__":
    main()
