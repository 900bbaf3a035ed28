"""The forms of responses, by the server that writes them: how they are recognised, and how their tokens are found.

Chat completions of OpenAI's API, and the completions of llama.cpp's server, have the same entry for each token. They
are parsed by pyarrow. The others hold objects whose keys are tokens, or lists of several types, which pyarrow does not
read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastxent.io.responses.rows import REAL, TEXT, WHOLE, Token, child, relisted, token_fields, unroll

_WRAPPERS = ((), ("response", "body"), ("body",), ("response",))  # where the response is in its line
_LEAF = {"chat": "choices", "llama.cpp": "completion_probabilities"}  # forms that pyarrow parses


@dataclass(frozen=True)
class Form:
    """How the tokens of a file are found.

    name: str. For people.
    wrapper: names. Of the objects around a response, from the outside in.
    numbered: bool. Tokens have ids.
    """

    name: str
    wrapper: tuple[str, ...]
    numbered: bool

    @property
    def fields(self) -> list[pa.Field]:
        """The columns of tokens."""
        return token_fields(self.numbered)

    def parsed(self, names: Container[str]) -> pa.Field | None:
        """What pyarrow parses of a line for some columns; None if Python must."""
        if self.name not in _LEAF:
            return None
        kind = pa.list_(self._entry(names))
        if self.name == "chat":
            kind = pa.list_(pa.struct([("index", WHOLE), ("logprobs", pa.struct([("content", kind)]))]))
        found = pa.field(_LEAF[self.name], kind)
        for name in reversed(self.wrapper):
            found = pa.field(name, pa.struct([found]))
        return found

    def spare(self, names: Container[str]) -> list[bytes]:
        """The keys, in quotes, of what is in every entry and not needed for some columns."""
        if "n_bytes" in names:
            return []
        texts = not self.numbered or "token" in names or "topk_tokens" in names
        return [b'"bytes"', *([] if texts else [b'"token"'])]

    def _entry(self, names: Container[str]) -> pa.DataType:
        """The type of the entry of a token, as far as some columns need it."""
        id = ("id", WHOLE) if self.numbered else ("token", TEXT)
        listed = {
            "topk_ids": [id], "topk_logprobs": [("logprob", REAL)],
            "topk_tokens": [("token", TEXT)] if self.numbered else [],
        }  # fmt: skip
        inside = dict(pair for name, pairs in listed.items() if name in names for pair in pairs)
        own = {
            "target": [id], "target_logprob": [("logprob", REAL)], "token": [("token", TEXT)],
            "n_bytes": [("token", TEXT), ("bytes", pa.list_(WHOLE))],
        }  # fmt: skip
        found = dict(pair for name, pairs in own.items() if name in names for pair in pairs)
        if inside:
            found["top_logprobs"] = pa.list_(pa.struct(list(inside.items())))
        return pa.struct(list(found.items() or [("logprob", REAL)]))

    def of_table(self, lines: pa.Array, first: int) -> dict[str, pa.Array]:
        """The columns of tokens, of the field `parsed` of lines. first: int. The number of the first line."""
        for name in [*self.wrapper, _LEAF[self.name]][1:]:
            lines = child(lines, name)
        choice: np.ndarray = np.zeros(len(lines), np.int64)
        request, content = np.arange(len(lines)), lines
        if self.name == "chat":
            choices = unroll(lines, empty=True)
            index = child(choices.values, "index")
            content = child(child(choices.values, "logprobs"), "content")
            request = choices.parent
            choice = np.asarray(pc.coalesce(index, pa.array(choices.place))).astype(np.int64)
        tokens = unroll(content, empty=False)
        return {
            "request": pa.array(first + request[tokens.parent]),
            "choice": pa.array(choice[tokens.parent]),
            "position": pa.array(tokens.place),
            **self._columns(tokens.values),
        }

    def _columns(self, entries: pa.Array) -> dict[str, pa.Array]:
        """The columns that the entries of tokens hold."""
        own = {field.name: child(entries, field.name) for field in entries.type}
        id, found = "id" if self.numbered else "token", dict[str, pa.Array]()
        for name, held in (("token", "token"), ("target", id), ("target_logprob", "logprob")):
            if held in own:
                found[name] = own[held]
        if "bytes" in own:
            sizes = pc.list_value_length(own["bytes"]).cast(WHOLE)
            found["n_bytes"] = pc.coalesce(sizes, pc.binary_length(own["token"]).cast(WHOLE))
        if "top_logprobs" not in own:
            return found
        top = own["top_logprobs"]
        listed = top.flatten()
        lists = {field.name: relisted(top, child(listed, field.name)) for field in listed.type}
        names = (("topk_ids", id), ("topk_logprobs", "logprob"), *([("topk_tokens", "token")] if self.numbered else []))
        return found | {name: lists[held] for name, held in names if held in lists}

    def of_line(self, line: bytes, request: int) -> Iterator[Token]:
        """The tokens of one line; one row of nulls if there are none. ValueError if it is not of the form."""
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
        none = Token(request, 0, 0, None, None, None, None, None, None)
        response = _inside(value, self.wrapper)
        try:
            found = [] if response is None else list(_READERS[self.name](response, request))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"it is not a response of {self.name}: {type(error).__name__} {error}") from None
        for token in found:
            if bool in {type(token.logprob), *map(type, token.logprobs or ())}:
                raise ValueError("a log-probability is true or false")
        yield from found or [none]


def find_form(objects: list[Any]) -> Form | None:
    """The form of a file of which the first objects are given; None if none is a response with log-probabilities."""
    for value in objects:
        for wrapper in _WRAPPERS:
            response = _inside(value, wrapper)
            if response is None:
                continue
            for name, held in _HELD.items():
                try:
                    numbered = held(response)
                except (KeyError, IndexError, TypeError, AttributeError, ValueError, StopIteration):
                    continue
                if numbered is not None:
                    return Form(name, wrapper, numbered)
    return None


def _inside(value: Any, wrapper: tuple[str, ...]) -> dict[str, Any] | None:
    for name in wrapper:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else None


# ---- whether a response is of a form: None if not, else whether its tokens have ids ----------------------------------


def _held_entries(entries: list[dict[str, Any]]) -> bool | None:
    first = entries[0]
    if not (isinstance(first["token"], str) and isinstance(first["top_logprobs"], list)):
        return None
    return all(isinstance(entry.get("id"), int) for entry in [first, *first["top_logprobs"]])


def _held_legacy(response: dict[str, Any]) -> bool | None:
    logprobs = response["choices"][0]["logprobs"]
    lists = logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"]
    return False if all(isinstance(values, list) for values in lists) else None


def _held_vllm(response: dict[str, Any]) -> bool | None:
    return True if next(_prompts(response), None) is not None else None


def _held_sglang(response: dict[str, Any]) -> bool | None:
    meta = response["meta_info"]
    return True if any(isinstance(meta.get(f"{side}_top_logprobs"), list) for side in ("input", "output")) else None


_HELD: dict[str, Callable[[dict[str, Any]], bool | None]] = {
    "vLLM": _held_vllm,
    "chat": lambda response: _held_entries(response["choices"][0]["logprobs"]["content"]),
    "llama.cpp": lambda response: _held_entries(response["completion_probabilities"]),
    "completions": _held_legacy,
    "SGLang": _held_sglang,
}


# ---- the tokens of a response ----------------------------------------------------------------------------------------


def _legacy(response: dict[str, Any], request: int) -> Iterator[Token]:
    """OpenAI's classic completions. Where the token is not among the likeliest, some servers add it to them. It is
    taken from a list where it is the last, if the list is longer than another of its choice, or if the token is always
    the last."""
    for number, choice in enumerate(response["choices"]):
        held = choice["logprobs"]
        if held is None:
            yield Token(request, choice.get("index", number), 0, None, None, None, None, None, None)
            continue
        tops = _lists_of(held["top_logprobs"], len(held["tokens"]))
        shortest = min((len(top) for top in tops if top), default=0)
        last = [
            bool(top and text in top and top[text] == min(top.values()))
            for text, top in zip(held["tokens"], tops, strict=False)
        ]
        always = all(is_last for is_last, top in zip(last, tops, strict=False) if top)
        for place, (text, logprob) in enumerate(zip(held["tokens"], held["token_logprobs"], strict=True)):
            if logprob is None or not tops:  # the first token of a prompt
                continue
            top = tops[place]
            if not top:  # a row that is told, not left out
                yield Token(request, choice.get("index", number), place, text, None, logprob, None, None, None)
                continue
            if last[place] and (len(top) > shortest or always):
                top = {token: value for token, value in top.items() if token != text}
            yield Token(
                request, choice.get("index", number), place, text, None, logprob, None, list(top.values()), list(top)
            )


def _prompts(response: dict[str, Any]) -> Iterator[tuple[int, list[Any] | dict[str, Any], list[int] | None]]:
    """(choice, log-probabilities of the prompt, ids of the prompt) of vLLM."""
    outer = response.get("prompt_logprobs")
    if isinstance(outer, list | dict):
        yield 0, outer, response.get("prompt_token_ids")
    for number, choice in enumerate(response.get("choices") or []):
        inner = choice.get("prompt_logprobs")
        if isinstance(inner, list | dict):
            yield choice.get("index", number), inner, choice.get("prompt_token_ids")


def _vllm(response: dict[str, Any], request: int) -> Iterator[Token]:
    """vLLM's ``prompt_logprobs``. The token of the prompt is always among them: if its rank is beyond their number, it
    was added. Without ids of the prompt it is the first."""
    for choice, positions, prompt in _prompts(response):
        flat = positions if isinstance(positions, list) else _nested(positions)
        for place, found in enumerate(flat):
            if not found:
                if place:  # the first position has none
                    yield Token(request, choice, place, None, None, None, None, None, None)
                continue
            own = str(prompt[place]) if prompt is not None else next(iter(found))
            mine = found[own]
            rank = mine.get("rank")
            if rank is not None and rank > len(found):
                found = {key: value for key, value in found.items() if key != own}
            ids = [int(key) for key in found]
            logprobs = [value["logprob"] for value in found.values()]
            texts = [value.get("decoded_token") for value in found.values()]
            yield Token(
                request, choice, place, mine.get("decoded_token"), int(own), mine["logprob"], ids, logprobs, texts
            )


def _nested(flat: dict[str, Any]) -> Iterator[dict[str, dict[str, Any]] | None]:
    """The positions of vLLM's ``FlatLogprobs``."""
    names = "token_ids", "logprobs", "ranks", "decoded_tokens"
    columns = [flat[name] for name in names]
    for begin, end in zip(flat["start_indices"], flat["end_indices"], strict=True):
        rows = zip(*(column[begin:end] for column in columns), strict=True)
        yield {
            str(id): {"logprob": logprob, "rank": rank, "decoded_token": text} for id, logprob, rank, text in rows
        } or None


def _sglang(response: dict[str, Any], request: int) -> Iterator[Token]:
    """SGLang's ``meta_info``: the prompt, then the output, in triples of a log-probability, an id and a text."""
    meta, position = response["meta_info"], 0
    for side in ("input", "output"):
        tokens = meta.get(f"{side}_token_logprobs") or []
        tops = _lists_of(meta.get(f"{side}_top_logprobs"), len(tokens))
        for place, (logprob, id, text) in enumerate(tokens):
            if logprob is not None and tops:
                top = tops[place]
                logprobs, ids, texts = (list(part) for part in zip(*top, strict=True)) if top else (None, None, None)
                yield Token(request, 0, position, text, id, logprob, ids, logprobs, texts)
            position += 1


def _lists_of(tops: list[Any] | None, tokens: int) -> list[Any]:
    """The lists of so many tokens; none if there are no lists. ValueError if their numbers differ."""
    if tops and len(tops) != tokens:
        raise ValueError(f"it has {tokens} tokens, but {len(tops)} lists of the likeliest ones")
    return tops or []


_READERS: dict[str, Callable[[dict[str, Any], int], Iterator[Token]]] = {
    "completions": _legacy, "vLLM": _vllm, "SGLang": _sglang
}  # fmt: skip
