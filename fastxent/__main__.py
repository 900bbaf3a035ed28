"""The ``fastxent`` program, also as ``python -m fastxent``: from its first import on, what goes wrong is one line."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Import the command line and run it."""
    try:
        from fastxent.cli.leave import arrive

        arrive()
        from fastxent.cli import main

        main()
    except KeyboardInterrupt:  # while it is being imported; from then on the command line answers itself
        from fastxent.cli.leave import INTERRUPTED, leave, say

        say("interrupted; nothing was left half-written")
        leave(INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - likewise: of a package that is damaged, or warnings that are errors
        from fastxent.cli.leave import failed, leave

        leave(failed(error))


if __name__ == "__main__":
    main()
