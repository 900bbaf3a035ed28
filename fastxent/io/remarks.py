"""What a part of a source may say of itself beside its rows; parts of most formats have nothing to say."""

from __future__ import annotations

from collections.abc import Mapping

from fastxent.errors import FastxentError


class Remarks:
    """The answers of a part that has nothing to say.

    missing: str or None. That the file is cut short.
    fallback: str or None. Why the logits of some units, of those taken so far, go through a slower reader.
    refused: name -> why what is called so in the source is not a column.
    """

    missing: str | None = None
    fallback: str | None = None
    refused: Mapping[str, FastxentError] = {}
