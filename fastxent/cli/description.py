"""What ``fastxent inspect`` says about a dump: a table or JSON, ending in the eval line to run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastxent.kernels.floats import FLOAT_TYPES

if TYPE_CHECKING:
    from fastxent.io.inspect import Candidate, Description

_SHOWN = 30  # columns; a dump with one column a class has thousands


def eval_line(found: Description, chosen: Candidate | None, sources: Sequence[str]) -> str | None:
    """The command that evaluates the dump, or None where no column can be its logits or its target.

    A column that looks like weights is left out: it would change what every figure means.
    """
    targets = found.roles["target"]
    if chosen is None or not targets:
        return None
    words = ["fastxent", "eval", *sources]
    words += ["--logits", chosen.name] if chosen.name != "logits" else []
    words += ["--dtype", "bfloat16"] if chosen.dtype is None else []
    words += ["--target", targets[0]] if targets[0] != "target" else []
    words += [word for column in found.roles["by"] for word in ("--by", column)]
    for role in ("cluster", "n_bytes"):
        words += [f"--{role.replace('_', '-')}", found.roles[role][0]] if found.roles[role] else []
    return shlex.join(words)


def to_dict(found: Description, chosen: Candidate | None, sources: Sequence[str]) -> dict[str, Any]:
    """JSON-ready values."""
    return {
        "schema": "fastxent/inspect/1",
        "files": found.files,
        "formats": found.formats,
        "rows": found.rows,
        "row_groups": found.row_groups,
        "columns": {column.name: str(column.type) for column in found.schema},
        "logits": [vars(candidate) for candidate in found.logits],
        "roles": found.roles,
        "storage": {
            "compressed_bytes": found.compressed_bytes,
            "uncompressed_bytes": found.uncompressed_bytes,
            "codecs": found.codecs,
            "encodings": found.encodings,
            "fallbacks": [{"file": file, "reason": why} for file, why in _fallbacks(found)[:_SHOWN]],
        },
        "memory_bytes": _memory(found, chosen),
        "command": eval_line(found, chosen, sources),
    }


def to_json(found: Description, chosen: Candidate | None, sources: Sequence[str]) -> str:
    """`to_dict` as text."""
    return json.dumps(to_dict(found, chosen, sources), indent=1, ensure_ascii=False)


def to_table(found: Description, chosen: Candidate | None, sources: Sequence[str]) -> str:
    """Text for the terminal."""
    line = eval_line(found, chosen, sources)
    files = found.files[0] if len(found.files) == 1 else f"{len(found.files)} files, from {found.files[0]}"
    facts = [("source", f"{files} ({', '.join(found.formats)})")]
    facts += [("rows", f"{_count(found.rows)}{_groups(found)}")]
    if chosen is not None:
        facts += [("logits", f"{chosen.name}: {_count(chosen.n_classes)} classes of {chosen.dtype or 'unsaid type'}")]
        facts += [("stored as", stored)] if (stored := _stored(found, chosen)) else []
        facts += [("read by", _reader(found))] if found.readers else []
        memory = _memory(found, chosen)
        size = "unknown before reading" if memory is None else size_of(memory)
        facts += [("in memory", f"{size}; eval keeps no more of it at a time than --memory")]
    others = [candidate.name for candidate in found.logits if candidate is not chosen]
    facts += [("or logits", ", ".join(others))] if others else []
    facts += [(role, ", ".join(names)) for role, names in found.roles.items() if names]
    width = max(len(column.name) for column in found.schema) if len(found.schema) else 0
    columns = [f"  {column.name:<{width}}  {column.type}" for column in found.schema][:_SHOWN]
    if len(found.schema) > _SHOWN:
        columns.append(f"  … and {len(found.schema) - _SHOWN} more")
    advice = ["run:", f"  {line}"] if line else [_missing(found, chosen)]
    return "\n".join([*(f"{name:<10} {text}" for name, text in facts), "", "columns:", *columns, "", *advice])


def size_of(nbytes: int) -> str:
    """Bytes for reading.

    >>> size_of(71880), size_of(3_000_000_000)
    ('71.9 kB', '3 GB')
    """
    value, unit = float(nbytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"


def _count(number: int | None) -> str:
    return "unknown before reading" if number is None else f"{number:,}"


def _groups(found: Description) -> str:
    groups = found.row_groups
    return "" if groups is None else f" in {groups:,} row group{'' if groups == 1 else 's'}"


def _stored(found: Description, chosen: Candidate) -> str:
    if not found.compressed_bytes:
        return chosen.type
    return f"{chosen.type}, {', '.join(found.codecs).lower()}, {size_of(found.compressed_bytes)} on disk"


def _fallbacks(found: Description) -> list[tuple[str, str]]:
    """Files whose logits pyarrow has to read, and why."""
    return [(file, why) for file, why in found.readers.items() if why is not None]


def _reader(found: Description) -> str:
    left = _fallbacks(found)
    if not left:
        return "the native reader"
    file, why = left[0]
    where = "" if len(found.readers) == 1 else f" in {len(left)} of {len(found.readers)} files, such as {file}"
    return f"pyarrow, which is slower{where}: {why}"


def _memory(found: Description, chosen: Candidate | None) -> int | None:
    if chosen is None or chosen.n_classes is None or found.rows is None:
        return None
    kind = FLOAT_TYPES[chosen.dtype or "bfloat16"]  # an untagged type is 16 bits wide
    return found.rows * chosen.n_classes * kind.width


def _missing(found: Description, chosen: Candidate | None) -> str:
    if chosen is None:
        return "No column looks like logits; name one with --logits, or 'prefix*' for one column a class."
    return f"No column looks like targets; run: fastxent eval … --logits {shlex.quote(chosen.name)} --target COLUMN"
