"""The Python of the README, block by block, for the tests that run it."""

import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks() -> dict[str, str]:
    """Each block of Python under the sentence that introduces it."""
    found = re.findall(r"([^\n]+)\n\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return {sentence.strip(): code for sentence, code in found}


def block(start: str) -> str:
    """The block whose introduction holds ``start``."""
    (code,) = [code for sentence, code in blocks().items() if start in sentence]
    return code


def sessions() -> dict[str, list[str]]:
    """Each command with its output, as the README shows them; a line that is "…" stands for any number of lines."""
    text = README.read_text(encoding="utf-8")
    found = re.findall(r"    \$ ([^\n]+)\n((?:    [^\n]*\n|\n(?=    ))+)", text)
    return {command: [line[4:] for line in output.splitlines()] for command, output in found}
