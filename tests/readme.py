"""The Python, sessions and calls of the README and of docs/examples.md, for the tests that run them."""

import functools
import re
from pathlib import Path

import numpy as np

import fastxent as fx

README = Path(__file__).resolve().parent.parent / "README.md"
EXAMPLES = README.parent / "docs" / "examples.md"


def blocks(page: Path = README) -> dict[str, str]:
    """Each block of Python under the sentence that introduces it."""
    found = re.findall(r"([^\n]+)\n\n```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return {sentence.strip(): code for sentence, code in found}


def block(start: str, page: Path = README) -> str:
    """The block whose introduction holds ``start``."""
    (code,) = [code for sentence, code in blocks(page).items() if start in sentence]
    return code


def sessions(page: Path = README) -> dict[str, list[str]]:
    """Each command with its output, as the page shows them; a line that is "…" stands for any number of lines."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"    \$ ([^\n]+)\n((?:    [^\n]*\n|\n(?=    ))+)", text)
    return {command: [line[4:] for line in output.splitlines()] for command, output in found}


@functools.cache
def given() -> dict[str, object]:
    """The names that the calls of docs/examples.md use."""
    names: dict[str, object] = {"fx": fx, "np": np}
    exec(block("With these numbers", EXAMPLES), names)  # noqa: S102
    return names


def calls() -> list[tuple[str, str, str]]:
    """(call in another library, call in fastxent, value) of each row of the tables of docs/examples.md."""
    rows = re.findall(r"^\|(?: [^|]* \| `([^|]*)`[^|]*\|)? `(fx[^|]*)` \|([^|]*)\|$", EXAMPLES.read_text("utf-8"), re.M)
    return [(peer, call, value.strip()) for peer, call, value in rows]
