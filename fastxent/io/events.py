"""Server-sent events of streamed responses: the chunks of each response become one JSON object in a line.

A stream holds lines ``data: {…}``, one chunk each, and ``data: [DONE]`` behind a response. Chunks of one response have
one ``id``. Tokens of chunks follow each other; of all else the last value counts. Other lines say nothing.
"""

from __future__ import annotations

import json
from typing import Any

from fastxent.errors import SourceError

STARTS = (b"data:", b"event:", b":")  # of a file of events
_DONE = b"[DONE]"
_LISTS = ("content", "tokens", "token_logprobs", "top_logprobs", "text_offset")  # of log-probabilities


def end_of_responses(data: bytes) -> int:
    """The end of the last line that ends a response; 0 if there is none."""
    at = data.rfind(_DONE)
    return 0 if at < 0 else data.find(b"\n", at) + 1


def responses_of(data: bytes, name: str) -> bytes:
    """The responses of whole streams of a file, one JSON object per line. `SourceError` for a chunk that is none."""
    found, now = list[_Response](), _Response(name)
    for line in data.splitlines():
        field, _, text = line.partition(b":")
        text = text.strip()
        if field.removeprefix(b"\xef\xbb\xbf") != b"data" or not text:
            continue
        chunk = None if text == _DONE else _chunk(text, name)
        begun = now.head.get("id")
        if chunk is None or (begun is not None and chunk.get("id") not in (None, begun)):
            found.append(now)
            now = _Response(name)
        if chunk is not None:
            now.add(chunk)
            if chunk.get("stop") is True:  # the end of a completion of llama.cpp
                found.append(now)
                now = _Response(name)
    return b"".join(one.line() for one in [*found, now] if one.head or one.choices)


def _chunk(text: bytes, name: str) -> dict[str, Any]:
    try:
        chunk = json.loads(text)
    except (ValueError, RecursionError):
        chunk = None
    if not isinstance(chunk, dict):
        shown = text[:40].decode("utf-8", "replace")
        raise SourceError(f"cannot read {name}: an event is not a JSON object, got {shown!r}; write the stream again")
    return chunk


class _Response:
    """What the chunks of one response hold so far. choices: the log-probabilities of each, by its index."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.head: dict[str, Any] = {}
        self.choices: dict[int, dict[str, Any]] = {}

    def add(self, chunk: dict[str, Any]) -> None:
        """Add a chunk."""
        for key, value in chunk.items():
            if key == "choices":
                if not isinstance(value, list):
                    raise SourceError(f"cannot read {self.name}: the choices of an event are not a list")
                self._add_choices(value)
            elif key == "completion_probabilities" and isinstance(value, list):
                held = self.head.setdefault(key, [])
                if not isinstance(held, list):
                    held = self.head[key] = []
                held.extend(value)
            elif value is not None or key not in self.head:
                self.head[key] = value

    def _add_choices(self, choices: list[Any]) -> None:
        for choice in choices:
            index = choice.get("index", 0) if isinstance(choice, dict) else None
            if type(index) is not int:
                raise SourceError(f"cannot read {self.name}: a choice of an event is not an object with an index")
            held, given = self.choices.setdefault(index, {}), choice.get("logprobs")
            for key, values in given.items() if isinstance(given, dict) else ():
                if key in _LISTS and isinstance(values, list):
                    held.setdefault(key, []).extend(values)

    def line(self) -> bytes:
        """One JSON object in a line."""
        choices = [{"index": index, "logprobs": held or None} for index, held in self.choices.items()]
        return json.dumps({**self.head, **({"choices": choices} if choices else {})}).encode() + b"\n"
