"""Responses of servers, as their sources write them, made of one small model of random tokens."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKENS = ["a", " the", '"', "\n", "é", "\\", "😀", "", " b", "<|x|>", "\t", "n"]
K = 4


class Row:
    """One token: the likeliest ids with their log-probabilities, and its own."""

    def __init__(self, rng: random.Random) -> None:
        weights = [rng.random() ** 4 + 1e-3 for _ in TOKENS]
        self.logprobs = [math.log(w / sum(weights)) for w in weights]
        self.top = sorted(range(len(TOKENS)), key=lambda j: -self.logprobs[j])[:K]
        self.id = rng.choice(self.top) if rng.random() < 0.7 else rng.randrange(len(TOKENS))

    @property
    def logprob(self) -> float:
        return self.logprobs[self.id]


def rows(seed: int, requests: int) -> list[list[Row]]:
    rng = random.Random(seed)
    return [[Row(rng) for _ in range(rng.randint(1, 5))] for _ in range(requests)]


def _entry(row: Row, ids: bool) -> dict[str, Any]:
    def listed(j: int) -> dict[str, Any]:
        found: dict[str, Any] = {"id": j} if ids else {}
        return {**found, "token": TOKENS[j], "bytes": [*TOKENS[j].encode()], "logprob": row.logprobs[j]}

    return {**listed(row.id), "top_logprobs": [listed(j) for j in row.top]}


def chat(response: list[Row], ids: bool = False) -> dict[str, Any]:
    choice = {"index": 0, "message": {"content": "x"}, "logprobs": {"content": [_entry(row, ids) for row in response]}}
    return {"id": "chatcmpl-1", "model": "m", "choices": [choice], "usage": {"total_tokens": len(response)}}


def chat_ids(response: list[Row]) -> dict[str, Any]:
    return chat(response, ids=True)


def batch_api(response: list[Row]) -> dict[str, Any]:
    return {"custom_id": "c", "response": {"status_code": 200, "body": chat(response)}, "error": None}


def native(response: list[Row]) -> dict[str, Any]:
    return {"content": "x", "completion_probabilities": [_entry(row, True) for row in response], "model": "m"}


def legacy(response: list[Row]) -> dict[str, Any]:
    """The first token has no log-probabilities; a token that is not among the likeliest is added to them."""
    tops: list[Any] = [None]
    for row in response:
        tops.append({TOKENS[j]: row.logprobs[j] for j in [*row.top, row.id]})
    held = {
        "tokens": ["<s>", *(TOKENS[row.id] for row in response)],
        "token_logprobs": [None, *(row.logprob for row in response)],
        "top_logprobs": tops,
        "text_offset": [0] * (len(response) + 1),
    }
    return {"id": "cmpl-1", "choices": [{"text": "x", "index": 0, "logprobs": held}], "model": "m"}


def _ranked(row: Row) -> dict[str, dict[str, Any]]:
    order = sorted(range(len(TOKENS)), key=lambda j: -row.logprobs[j])
    return {
        str(j): {"logprob": row.logprobs[j], "rank": order.index(j) + 1, "decoded_token": TOKENS[j]}
        for j in dict.fromkeys([row.id, *row.top])
    }


def vllm(response: list[Row]) -> dict[str, Any]:
    return {
        "request_id": "0", "prompt": "x", "prompt_token_ids": [0, *(row.id for row in response)],
        "prompt_logprobs": [None, *map(_ranked, response)],
    }  # fmt: skip


def vllm_flat(response: list[Row]) -> dict[str, Any]:
    flat: dict[str, list[Any]] = {
        name: [] for name in ("start_indices", "end_indices", "token_ids", "logprobs", "ranks", "decoded_tokens")
    }
    for found in [{}, *map(_ranked, response)]:
        flat["start_indices"].append(len(flat["token_ids"]))
        for key, value in found.items():
            flat["token_ids"].append(int(key))
            flat["logprobs"].append(value["logprob"])
            flat["ranks"].append(value["rank"])
            flat["decoded_tokens"].append(value["decoded_token"])
        flat["end_indices"].append(len(flat["token_ids"]))
    return {"request_id": "0", "prompt_logprobs": flat}


def vllm_outputs(response: list[Row]) -> dict[str, Any]:
    """What vLLM returns in Python: the prompt is the first half of the tokens, and the output the others."""
    half = len(response) // 2
    output = {
        "index": 0,
        "token_ids": [row.id for row in response[half:]],
        "logprobs": [*map(_ranked, response[half:])],
    }
    return {**vllm(response[:half]), "outputs": [output]}


def responses_api(response: list[Row]) -> dict[str, Any]:
    """OpenAI's Responses API: a message of two texts behind a summary of the reasoning."""
    half = len(response) // 2
    texts = [
        {"type": "output_text", "text": "x", "logprobs": [_entry(row, False) for row in part]}
        for part in (response[:half], response[half:])
    ]
    output = [
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": [*texts, {"type": "refusal", "refusal": "x"}]},
    ]
    return {"id": "resp_1", "object": "response", "output": output}


def bare(form: str, response: list[Row], null: bool) -> dict[str, Any]:
    """A response without lists of the likeliest tokens: they are null, or missing."""
    value = FORMS[form](response)
    inner = value.get("response", {}).get("body", value)
    holders = [inner.get("meta_info", {}), *(choice["logprobs"] for choice in inner.get("choices", []))]
    holders += [entry for holder in holders for entry in holder.get("content", [])]
    holders += inner.get("completion_probabilities", [])
    holders += [
        entry
        for item in inner.get("output", [])
        for part in item.get("content", [])
        for entry in part.get("logprobs", [])
    ]
    for holder in holders:
        for name in ("top_logprobs", "input_top_logprobs", "output_top_logprobs"):
            if name in holder:
                holder[name] = None
                if not null:
                    del holder[name]
    return value


def sglang(response: list[Row]) -> dict[str, Any]:
    own = [[row.logprob, row.id, TOKENS[row.id]] for row in response]
    tops = [[[row.logprobs[j], j, None] for j in row.top] for row in response]
    meta = {"input_token_logprobs": [[None, 0, None], *own], "input_top_logprobs": [None, *tops]}
    return {"text": "x", "meta_info": {"id": "0", **meta, "output_token_logprobs": [], "output_top_logprobs": []}}


def events(responses: list[dict[str, Any]], done: bool = True) -> str:
    """Responses as a server streams them, a token at a time; without ``done`` their ids alone tell them apart."""
    found = [": comment", ""]
    for k, response in enumerate(responses):
        head = {"id": f"x-{k}", "model": response.get("model"), "object": "chunk"}
        if "completion_probabilities" in response:
            parts: list[dict[str, Any]] = [
                {"completion_probabilities": [entry], "stop": False} for entry in response["completion_probabilities"]
            ]
            parts.append({"content": "", "stop": True})
        else:
            parts = [{"choices": [{"index": 0, "delta": {"role": "assistant"}}]}]
            for choice in response["choices"]:
                held = choice["logprobs"]
                for i in range(len(next(iter(held.values())))):
                    token = {name: values and values[i : i + 1] for name, values in held.items()}
                    parts.append({"choices": [{"index": choice["index"], "delta": {}, "logprobs": token}]})
            parts += [
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
                {"choices": [], "usage": {"n": 1}},
            ]
        for part in parts:
            found += ["event: x", f"data: {json.dumps({**head, **part})}", ""]
        found += ["data: [DONE]", ""] if done else []
    return "\n".join(found)


FORMS: dict[str, Callable[[list[Row]], dict[str, Any]]] = {
    "chat": chat, "chat_ids": chat_ids, "batch_api": batch_api, "native": native, "legacy": legacy, "vllm": vllm,
    "vllm_flat": vllm_flat, "vllm_outputs": vllm_outputs, "sglang": sglang, "responses_api": responses_api,
    "chat_choice": lambda response: {"question": "x", "logprobs": chat(response)["choices"][0]["logprobs"]},
    "legacy_choice": lambda response: legacy(response)["choices"][0],
}  # fmt: skip
NUMBERED = {"chat_ids", "native", "vllm", "vllm_flat", "vllm_outputs", "sglang"}
BARE = ("chat", "chat_ids", "batch_api", "native", "legacy", "sglang", "responses_api")


def written(path: Path, form: str, seed: int = 0, requests: int = 20) -> Path:
    lines = [json.dumps(FORMS[form](response)) for response in rows(seed, requests)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
