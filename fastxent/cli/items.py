"""Values of flags that are lists: comma lists, JSON lists and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from fastxent.errors import StateError


class Items(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A comma list, a JSON list (values may hold commas), or ``@FILE`` with one value per line or a JSON list.

    item: str -> value. Converts one entry.
    what: str. The name of the entries in errors.
    """

    name = "list"

    def __init__(self, item: Callable[[str], Any] = str, what: str = "values") -> None:
        self.item = item
        self.what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        """Return the entries."""
        if isinstance(value, list | tuple):
            return list(value)
        text = str(value)
        try:
            parts = self._lines(text[1:]) if text.startswith("@") else split(text)
        except (OSError, ValueError) as error:
            self.fail(f"cannot read {text[1:]!r}: {getattr(error, 'strerror', None) or error}", param, ctx)
        try:
            return [self.item(part) for part in parts]
        except ValueError:
            self.fail(f"invalid list of {self.what} {value!r}; expected values such as 1,2,3 or @FILE", param, ctx)

    def _lines(self, name: str) -> list[str]:
        """Return the values of a file. Numbers hold no comma, so several may share a line."""
        text = Path(name).read_text(encoding="utf-8-sig")
        if (listed := _json_list(text)) is not None:
            return listed
        if self.item is not str:
            return [part for line in text.splitlines() for part in split(line)]
        lines = [line.strip() for line in text.strip("\r\n").split("\n")]
        if "" in lines[:-1]:
            raise ValueError(f"line {lines.index('') + 1} is empty; write one value per line, or a JSON list")
        return [line for line in lines if line]


class Fitted(click.ParamType):  # type: ignore[type-arg]
    """A temperature: a number, or ``@FILE``, the JSON from ``fastxent calibrate``."""

    name = "temperature"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the temperature, or a fit that has temperatures of slices."""
        if not isinstance(value, str):
            return value
        if not value.startswith("@"):
            return float(click.FLOAT(value, param, ctx))
        from fastxent.results.fitted import TemperatureFit

        try:
            fit = TemperatureFit.from_json(Path(value[1:]).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"cannot read {value[1:]!r}: {getattr(error, 'strerror', None) or error}", param, ctx)
        except StateError as error:
            self.fail(f"{value[1:]}: {error}", param, ctx)
        if fit.note is not None:
            self.fail(f"{value[1:]} holds no temperature: {fit.note}", param, ctx)
        return fit if fit.slices else fit.temperature.value


def split(text: str) -> list[str]:
    """Return the values of a comma list or of a JSON list.

    >>> split("a, b"), split('["a, b", "c"]')
    (['a', 'b'], ['a, b', 'c'])
    """
    listed = _json_list(text)
    return [part for piece in text.split(",") if (part := piece.strip())] if listed is None else listed


def joined(name: str) -> str:
    """Return one value in the form that `split` reads back.

    >>> joined("fold"), joined("a,b")
    ('fold', '["a,b"]')
    """
    plain = name and not name.startswith("@") and split(name) == [name]
    return name if plain else json.dumps([name], ensure_ascii=False)


def _json_list(text: str) -> list[str] | None:
    """Return a JSON list of strings and numbers as strings, or None for any other text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(value, str | bool) for value in found):
        return None
    return [value if isinstance(value, str) else str(value).lower() for value in found]


def flag(text: str) -> bool:
    """Return one entry of a class mask."""
    values = {"1": True, "true": True, "0": False, "false": False}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


def flatten(ctx: click.Context, param: click.Parameter, value: Iterable[list[Any]]) -> list[Any] | None:
    """Join the lists of a repeated option; None if it is not given, and no entries for ``--option ''``."""
    lists = list(value)
    return [item for items in lists for item in items] if lists else None


def one_or_many(ctx: click.Context, param: click.Parameter, value: str | list[str] | None) -> str | list[str] | None:
    """Return a single name as it is, several as a list."""
    if value is None:
        return None
    items = (split(value) or [value]) if isinstance(value, str) else value
    return items[0] if len(items) == 1 else items
