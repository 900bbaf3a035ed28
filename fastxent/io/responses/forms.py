"""The forms of responses, by the server that writes them: how they are recognised, and how their tokens are found.

Chat completions of OpenAI's API, and the completions of llama.cpp's server, have the same entry for each token. The
readers here are the rule. Compiled code (`lines`) reads lines that are as their form has them, and leaves all others to
these readers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from fastxent.io.responses.rows import Token, token_fields

_SIDES = ("input", "output")
_WRAPPERS = ((), ("response", "body"), ("body",), ("response",))  # where the response is in its line


@dataclass(frozen=True)
class Form:
    """How the tokens of a file are found.

    name: str. For people.
    wrapper: names. Of the objects around a response, from the outside in.
    numbered: bool. Tokens have ids.
    listed: bool. Tokens have lists of the likeliest ones.
    """

    name: str
    wrapper: tuple[str, ...]
    numbered: bool
    listed: bool = True

    @property
    def fields(self) -> list[pa.Field]:
        """The columns of tokens."""
        return token_fields(self.numbered, self.listed)

    def of_line(self, line: bytes, request: int) -> Iterator[Token]:
        """The tokens of one line; one row of nulls if there are none. ValueError if it is not of the form."""
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
        none = Token(request, 0, 0, None, None, None, None, None, None)
        response = inside(value, self.wrapper)
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
        for wrapper in _wrappers(value):
            response = inside(value, wrapper)
            if response is None:
                continue
            for name, held in _HELD.items():
                try:
                    numbered = held(response)
                except (KeyError, IndexError, TypeError, AttributeError, ValueError, StopIteration):
                    continue
                if numbered is not None:
                    form = Form(name, wrapper, numbered)
                    return replace(form, listed=any(_lists(form, found) for found in objects))
    return None


def _wrappers(value: Any) -> Iterator[tuple[str, ...]]:
    """Where the response of a line may be: where servers have it, and in each object of a line that people made."""
    yield from _WRAPPERS
    yield from ((name,) for name, held in value.items() if isinstance(held, dict) and (name,) not in _WRAPPERS)


def _lists(form: Form, value: Any) -> bool:
    """Whether a line lists the likeliest tokens of one of its own."""
    response = inside(value, form.wrapper)
    try:
        return response is not None and any(token.logprobs for token in _READERS[form.name](response, 0))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        return True  # the line is refused where it is read


def inside(value: Any, wrapper: tuple[str, ...]) -> dict[str, Any] | None:
    """The response of a line; None if it has none."""
    for name in wrapper:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else None


# ---- whether a response is of a form: None if not, else whether its tokens have ids ----------------------------------


def _held_entries(entries: list[dict[str, Any]]) -> bool | None:
    first = entries[0]
    tops = first.get("top_logprobs")
    if not (isinstance(first["token"], str) and isinstance(first["logprob"], int | float | None)):
        return None
    return all(isinstance(entry.get("id"), int) for entry in [first, *(tops or [])])


def _held_chat(response: dict[str, Any]) -> bool | None:
    return _held_entries(response["choices"][0]["logprobs"]["content"])


def _held_legacy(response: dict[str, Any]) -> bool | None:
    logprobs = response["choices"][0]["logprobs"]
    tokens, values, tops = logprobs["tokens"], logprobs["token_logprobs"], logprobs.get("top_logprobs")
    good = isinstance(tokens, list) and isinstance(values, list) and isinstance(tops, list | None)
    return False if good else None


def _held_vllm(response: dict[str, Any]) -> bool | None:
    return True if any(_is_positions(found) for _, found, _, _ in _prompts(response)) else None


def _is_positions(found: list[Any] | dict[str, Any]) -> bool:
    """Whether they are objects, not the numbers that people have made of them."""
    return "token_ids" in found if isinstance(found, dict) else all(isinstance(tops, dict | None) for tops in found)


def _held_sglang(response: dict[str, Any]) -> bool | None:
    meta = response["meta_info"]
    return (
        True if any(len(token) == 3 for side in _SIDES for token in meta.get(f"{side}_token_logprobs") or []) else None
    )


def _held_parts(response: dict[str, Any]) -> bool | None:
    return _held_entries(next(entries for entries in _parts(response) if entries))


_HELD: dict[str, Callable[[dict[str, Any]], bool | None]] = {
    "vLLM": _held_vllm,
    "chat": _held_chat,
    "llama.cpp": lambda response: _held_entries(response["completion_probabilities"]),
    "completions": _held_legacy,
    "SGLang": _held_sglang,
    "Responses API": _held_parts,
    "chat choices": lambda choice: _held_chat({"choices": [choice]}),
    "completion choices": lambda choice: _held_legacy({"choices": [choice]}),
}


# ---- the tokens of a response ----------------------------------------------------------------------------------------


def _entries(entries: list[Any], request: int, choice: int) -> Iterator[Token]:
    for place, entry in enumerate(entries):
        tops, held = entry.get("top_logprobs"), entry.get("bytes")
        if not isinstance(held, list | None):
            raise TypeError("the bytes of a token are not a list")
        ids, logprobs, texts = (
            None if tops is None else [top.get(name) for top in tops] for name in ("id", "logprob", "token")
        )
        size = None if held is None else len(held)
        own = entry.get("token"), entry.get("id"), entry.get("logprob")
        yield Token(request, choice, place, *own, ids, logprobs, texts, size)


def _chat(response: dict[str, Any], request: int) -> Iterator[Token]:
    for number, choice in enumerate(response.get("choices") or []):
        index, logprobs = choice.get("index"), choice.get("logprobs")
        index = number if index is None else index
        content = None if logprobs is None else logprobs.get("content")
        if content is None:
            yield Token(request, index, 0, None, None, None, None, None, None)
        else:
            yield from _entries(content, request, index)


def _native(response: dict[str, Any], request: int) -> Iterator[Token]:
    yield from _entries(response.get("completion_probabilities") or [], request, 0)


def _parts(response: dict[str, Any]) -> Iterator[list[Any]]:
    """The tokens of each text of a response of OpenAI's Responses API."""
    for item in response["output"] or []:
        for part in item.get("content") or []:
            yield part.get("logprobs") or []


def _responses(response: dict[str, Any], request: int) -> Iterator[Token]:
    if response.get("output") is not None:
        yield from _entries([entry for entries in _parts(response) for entry in entries], request, 0)


def _legacy(response: dict[str, Any], request: int) -> Iterator[Token]:
    """OpenAI's classic completions. Where the token is not among the likeliest, some servers add it to them. It is
    taken from a list where it is the last, if the list is longer than another of its choice, or if the token is always
    the last. If some lists have two tokens, those of one hold the likeliest."""
    for number, choice in enumerate(response.get("choices") or []):
        held = choice["logprobs"]
        if held is None:
            yield Token(request, choice.get("index", number), 0, None, None, None, None, None, None)
            continue
        tops = _lists_of(held.get("top_logprobs"), len(held["tokens"]))
        sizes = [len(top) for top in tops if top]
        shortest, longest = min(sizes, default=0), max(sizes, default=0)
        last = [
            bool(top and text in top and top[text] == min(top.values()))
            for text, top in zip(held["tokens"], tops, strict=False)
        ]
        always = all(is_last for is_last, top in zip(last, tops, strict=False) if top)
        for place, (text, logprob) in enumerate(zip(held["tokens"], held["token_logprobs"], strict=True)):
            if logprob is None:  # the first token of a prompt
                continue
            top = tops[place] if tops else None
            if not top:  # a row that is told, not left out
                yield Token(request, choice.get("index", number), place, text, None, logprob, None, None, None)
                continue
            if last[place] and (len(top) > shortest or (always and (len(top) > 1 or longest == 1))):
                top = {token: value for token, value in top.items() if token != text}
            yield Token(
                request, choice.get("index", number), place, text, None, logprob, None, list(top.values()), list(top)
            )


def _prompts(response: dict[str, Any]) -> Iterator[tuple[int, list[Any] | dict[str, Any], list[int] | None, int]]:
    """(choice, log-probabilities, ids of the tokens, first position) of vLLM's prompts, and of the outputs behind the
    prompt of a response."""
    outer, begin = response.get("prompt_logprobs"), 0
    if isinstance(outer, list | dict):
        yield 0, outer, response.get("prompt_token_ids"), 0
        begin = len(outer["start_indices"] if isinstance(outer, dict) else outer)
    for number, choice in enumerate(response.get("choices") or []):
        inner = choice.get("prompt_logprobs")
        if isinstance(inner, list | dict):
            yield choice.get("index", number), inner, choice.get("prompt_token_ids"), 0
    for number, output in enumerate(response.get("outputs") or []):
        inner = output.get("logprobs")
        if isinstance(inner, list | dict):
            yield output.get("index", number), inner, output.get("token_ids"), begin


def _vllm(response: dict[str, Any], request: int) -> Iterator[Token]:
    """vLLM's ``prompt_logprobs``. The token of the prompt is always among them: if its rank is beyond their number, it
    was added. Without ids of the prompt it is the first."""
    for choice, positions, prompt, begin in _prompts(response):
        flat = positions if isinstance(positions, list) else _nested(positions)
        for place, found in enumerate(flat):
            if not found:
                if place:  # the first position has none
                    yield Token(request, choice, begin + place, None, None, None, None, None, None)
                continue
            own = str(prompt[place]) if prompt is not None else next(iter(found))
            mine = found[own]
            rank = mine.get("rank")
            if rank is not None and rank > len(found):
                found = {key: value for key, value in found.items() if key != own}
            ids = [int(key) for key in found]
            logprobs = [value["logprob"] for value in found.values()]
            texts = [value.get("decoded_token") for value in found.values()]
            told = mine.get("decoded_token"), int(own), mine["logprob"]
            yield Token(request, choice, begin + place, *told, ids, logprobs, texts)


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
    listed = any(meta.get(f"{side}_top_logprobs") for side in _SIDES)
    for side in _SIDES:
        tokens = meta.get(f"{side}_token_logprobs") or []
        tops = _lists_of(meta.get(f"{side}_top_logprobs"), len(tokens))
        for place, (logprob, id, text) in enumerate(tokens):
            if logprob is not None and (tops or not listed):
                top = tops[place] if tops else None
                logprobs, ids, texts = (list(part) for part in zip(*top, strict=True)) if top else (None, None, None)
                yield Token(request, 0, position, text, id, logprob, ids, logprobs, texts)
            position += 1


def _alone(choice: dict[str, Any]) -> dict[str, Any]:
    """A response of one choice, of which people have kept that alone, or its log-probabilities."""
    return {"choices": [{"index": 0, "logprobs": choice.get("logprobs")}]}


def _lists_of(tops: list[Any] | None, tokens: int) -> list[Any]:
    """The lists of so many tokens; none if there are no lists. ValueError if their numbers differ."""
    if tops and len(tops) != tokens:
        raise ValueError(f"it has {tokens} tokens, but {len(tops)} lists of the likeliest ones")
    return tops or []


_READERS: dict[str, Callable[[dict[str, Any], int], Iterator[Token]]] = {
    "chat": _chat, "llama.cpp": _native, "completions": _legacy, "vLLM": _vllm, "SGLang": _sglang,
    "Responses API": _responses,
    "chat choices": lambda choice, request: _chat(_alone(choice), request),
    "completion choices": lambda choice, request: _legacy(_alone(choice), request),
}  # fmt: skip
