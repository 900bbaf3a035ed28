"""The description that ``fastxent inspect`` prints: a table or JSON, with the eval command to run."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastxent.cli.items import joined
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.names import printable, public_name, some

if TYPE_CHECKING:
    from fastxent.io.inspect import Candidate, Description

_SHOWN = 30  # columns; a dump with one column per class has thousands
_MOST = 10  # names per line
_WIDEST = 40  # characters of the column of names


class Shown:
    """A description as text and as JSON.

    found: Description. The contents of the dump.
    chosen: Candidate or None. The column of scores.
    sources: strings. The sources as they were given.
    scores: str. The kind of the scores, from `score_kind`.
    head: str or None. The output head, if the scores are hidden states.
    """

    def __init__(
        self,
        found: Description,
        chosen: Candidate | None,
        sources: Sequence[str],
        scores: str,
        head: str | None = None,
    ) -> None:
        self.found, self.chosen, self.sources, self.scores, self.head = found, chosen, sources, scores, head
        self._often = Counter(found.schema.names)

    def eval_line(self) -> str | None:
        """Return the command that evaluates the dump, or None if no column can be its logits, or its targets are
        strings.

        Without a column for targets it computes the metrics that need none. A column that looks like weights is not
        used, because it would change every metric.
        """
        from fastxent.state.tasks import unlabelled

        if self.chosen is None:
            return self._eval_lists() if "ids" in self.found.roles else self._eval_given()
        classes = self.chosen.classes if not any("," in name for name in self.chosen.classes) else ()
        target = next((name for name in self._usable("target") if classes or not self._is_text(name)), None)
        if target is None and self._usable("target"):
            return None
        words = ["fastxent", "eval", *map(_path, self.sources)]
        words += ["--logits", joined(self.chosen.name)] if self.chosen.name != "logits" else []
        words += ["--logits-dtype", "bfloat16"] if self.chosen.dtype is None else []
        words += ["--head", self.head] if self.head is not None else []
        words += ["--input", self.scores] if self.scores != "logits" else []
        if target is None:
            words += ["--metrics", ",".join(unlabelled(self.chosen.task))]
        elif target != "target":
            words += ["--target", target]
        words += ["--classes", ",".join(classes)] if target and classes and self._is_text(target) else []
        words += self._shift(target)
        words += [] if self.found.labels is None else ["--task", "multilabel"]
        words += ["--target-ids"] if self.found.labels == "ids" else []
        words += [word for column in self._usable("by")[:_MOST] for word in ("--by", joined(column))]
        single = self.chosen.task == "binary" or self.found.labels is not None
        for role in ("cluster",) if single or target is None else ("cluster", "n_bytes"):
            words += [word for name in self._usable(role)[:1] for word in (_flag(role), name)]
        return public_name(shlex.join(words))

    def _eval_lists(self) -> str | None:
        """Return the command that evaluates a top-k dump."""
        names = ("ids", "logprobs", "other", "target_logprob")
        given = {role: self._usable(role) for role in names if role in self.found.roles}
        if not (given.get("ids") and given.get("logprobs")):
            return None
        words = ["fastxent", "eval", *map(_path, self.sources), "--logits", given["logprobs"][0]]
        words += ["--ids", given["ids"][0]]
        text = self._is_text(given["ids"][0])
        target = next((name for name in self._usable("target") if self._is_text(name) == text), None)
        if target != "target":
            words += ["--metrics", "entropy,confidence,covered_mass"] if target is None else ["--target", target]
        words += self._shift(target)
        roles = ("other",) if target is None else ("other", "target_logprob")
        words += [word for role in roles for name in given.get(role, [])[:1] for word in (_flag(role), name)]
        words += [word for column in self._usable("by")[:_MOST] for word in ("--by", joined(column))]
        for role in ("cluster",) if target is None else ("cluster", "n_bytes"):
            words += [word for name in self._usable(role)[:1] for word in (_flag(role), name)]
        return public_name(shlex.join(words))

    def _eval_given(self) -> str | None:
        """Return the command that evaluates a dump without logits, or None if it holds nothing to evaluate."""
        words = ["fastxent", "eval", *map(_path, self.sources)]
        given = {role: self._usable(role) for role in ("target_logprob", "scores") if role in self.found.roles}
        if given.get("target_logprob"):
            words += ["--target-logprob", given["target_logprob"][0]]
        elif given.get("scores"):
            words += ["--scores", ",".join(map(joined, given["scores"][:_MOST]))]
        else:
            return None
        roles = ("cluster", "n_bytes") if "target_logprob" in given else ("cluster",)
        words += [word for role in roles for name in self._usable(role)[:1] for word in (_flag(role), name)]
        return public_name(shlex.join(words))

    def _shift(self, target: str | None) -> list[str]:
        """Return the flag for targets that Hugging Face's models shift themselves."""
        return ["--shift", "1"] if self.found.head is not None and target in ("labels", "input_ids") else []

    def _usable(self, role: str) -> list[str]:
        """Return the columns that an option can name: printable names that occur once."""
        return [name for name in self.found.roles[role] if name.isprintable() and self._often[name] <= 1 and name]

    def _is_text(self, name: str) -> bool:
        from fastxent.io.layout import find_field

        field = find_field(self.found.schema, name)
        assert field is not None, "a role names it"
        kind = field.type
        return str(getattr(kind, "value_type", kind)) in ("string", "large_string", "string_view")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        found = self.found
        return {
            "schema": "fastxent/inspect/1",
            "files": found.files,
            "formats": found.formats,
            "rows": found.rows,
            "documents": found.documents,
            "row_groups": found.row_groups,
            "columns": {column.name: str(column.type) for column in found.schema},
            "logits": [vars(candidate) for candidate in found.logits],
            "input": self.scores,
            "roles": found.roles,
            "storage": {
                "compressed_bytes": found.compressed_bytes,
                "uncompressed_bytes": found.uncompressed_bytes,
                "codecs": found.codecs,
                "encodings": found.encodings,
                "fallbacks": [{"file": file, "reason": why} for file, why in _fallbacks(found)[:_SHOWN]],
            },
            "memory_bytes": _memory(found, self.chosen),
            "warnings": found.warnings,
            "command": self.eval_line(),
        }

    def to_json(self) -> str:
        """Return `to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    def to_markdown(self) -> str:
        """Return the text as a code block."""
        return f"```\n{self}\n```\n"

    def __repr__(self) -> str:
        """Return text for the terminal; names are printable and cannot break a line."""
        found, chosen, line = self.found, self.chosen, self.eval_line()
        files = found.files[0] if len(found.files) == 1 else f"{len(found.files)} files, from {found.files[0]}"
        facts = [("source", f"{files} ({', '.join(found.formats)})")]
        facts += [("warning", warning) for warning in found.warnings]
        if found.head is None:
            facts += [("rows", f"{_count(found.rows)}{_groups(found)}")]
        else:
            facts += [("documents", f"{_count(found.documents)}{_groups(found)}; each position is a row")]
        if chosen is not None:
            held = "one number per row" if chosen.task == "binary" else f"{_count(chosen.n_classes)} classes"
            states = "" if chosen.width is None else f"{chosen.width:,} numbers, which the head makes "
            facts += [("logits", f"{chosen.name}: {states}{held} of {chosen.dtype or 'unknown type'}")]
            facts += [("stored as", stored)] if (stored := _stored(found, chosen)) else []
            facts += [("read by", _reader(found))] if found.readers and chosen.task != "binary" else []
            memory = _memory(found, chosen)
            size = "unknown before reading" if memory is None else size_of(memory)
            facts += [("in memory", f"{size}; eval holds at most --memory of it at a time")]
        if "--shift" in (line or ""):
            facts += [("shift", "--shift 1, because models of Hugging Face predict the next label; omit it if yours "
                       "are shifted already")]  # fmt: skip
        if "ids" in found.roles:
            facts += [("top-k", "rows list some classes; --n-classes N, the size of the vocabulary, narrows bounds")]
        if chosen is not None and line and not self._usable("target"):
            facts += [("targets", "no column looks like them; name one with --target, in another file with --targets")]
        others = [candidate.name for candidate in found.logits if candidate is not chosen]
        facts += [("or logits", some(others, _MOST))] if others else []
        facts += [(role, some(names, _MOST)) for role, names in found.roles.items() if names]
        shown = [(printable(column.name), printable(str(column.type))) for column in list(found.schema)[:_SHOWN]]
        width = min(_WIDEST, max((len(name) for name, _ in shown), default=0))
        columns = [f"  {name:<{width}}  {kind}" for name, kind in shown]
        if len(found.schema) > _SHOWN:
            columns.append(f"  … and {len(found.schema) - _SHOWN:,} more")
        advice = ["run:", f"  {printable(line)}"] if line else [printable(self._missing())]
        return "\n".join(
            [*(f"{name:<10} {printable(text)}" for name, text in facts), "", "columns:", *columns, "", *advice]
        )

    def _missing(self) -> str:
        if self.chosen is None and (hidden := self.found.roles.get("hidden")):
            line = shlex.join(["fastxent", "inspect", *map(_path, self.sources), "--head"])
            return f"Column {hidden[0]!r} looks like hidden states; run, with a file of the head as HEAD: {line} HEAD"
        if self.chosen is None:
            return "No column looks like logits; name one with --logits, or 'prefix*' for one column a class."
        words = [*map(_path, self.sources), "--logits", joined(self.chosen.name), "--target", self._usable("target")[0]]
        line = public_name(shlex.join(["fastxent", "eval", *words, "--classes"]))
        return f"The targets are strings; run, with a text file of one class name per line as NAMES: {line} @NAMES"


def _flag(role: str) -> str:
    return f"--{role.replace('_', '-')}"


def _path(source: str) -> str:
    return f"./{source}" if source.startswith("-") else source


def size_of(nbytes: int) -> str:
    """Return bytes with a unit.

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
    """Return the files whose logits are read by pyarrow, and why."""
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
    kind = FLOAT_TYPES[chosen.dtype or "bfloat16"]  # a column of unknown float type is 16 bits wide
    return found.rows * chosen.n_classes * kind.width
