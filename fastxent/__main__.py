"""The ``fastxent`` program, also run as ``python -m fastxent``. Any error, even while importing, is one line."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Import the command line and run it."""
    try:
        from fastxent.cli.leave import arrive

        arrive()
        from fastxent.cli.program import main

        main()
    except KeyboardInterrupt:  # during the import; later ones are handled in `fastxent.cli.program`
        from fastxent.cli.leave import INTERRUPTED, leave, say

        say("interrupted; nothing was left half-written")
        leave(INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - during the import: a damaged package, or warnings as errors
        from fastxent.cli.leave import failed, leave

        leave(failed(error))


if __name__ == "__main__":
    main()
