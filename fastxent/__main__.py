"""``python -m fastxent`` is the ``fastxent`` program."""

from __future__ import annotations

from fastxent.cli import main

if __name__ == "__main__":
    main()
