"""A recurrent net that spells numbers, trained by truncated back-propagation through time. NumPy and fastxent only.

    python examples/recurrent.py

The rows are the words "zero" .. "ninety-nine", of different lengths. Logits are (N, T, C): words, places, letters.
Targets behind the end of a word are -100, `cross_entropy_with_grad` ignores them: their loss and gradient are 0.
The net reads a few letters at a time. Its state is passed on to the next letters, the gradient is not.
"""

from __future__ import annotations

import numpy as np

import fastxent as fx

ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORDS = ONES + [f"{ten}-{one}" if one != "zero" else ten for ten in TENS for one in ONES[:10]]
LETTERS = ["\n", *sorted(set("".join(WORDS)))]  # a line break starts and ends a word
IGNORED = -100

Net = dict[str, np.ndarray]


def spelled(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(letters, next letters): both int (N, T). A word is padded with line breaks, and its targets with -100."""
    length = max(map(len, words)) + 1
    given = np.zeros((len(words), length), int)
    target = np.full((len(words), length), IGNORED)
    for row, word in enumerate(words):
        ids = [LETTERS.index(letter) for letter in word]
        given[row, 1 : len(ids) + 1] = ids
        target[row, : len(ids) + 1] = [*ids, 0]
    return given, target


def new_net(hidden: int, rng: np.random.Generator) -> Net:
    """h' = tanh(read[letter] + h·keep), logits = h'·write + bias."""
    shapes = {"read": (len(LETTERS), hidden), "keep": (hidden, hidden), "write": (hidden, len(LETTERS))}
    return {k: rng.normal(size=shape) / hidden**0.5 for k, shape in shapes.items()} | {"bias": np.zeros(len(LETTERS))}


def loss_and_grad(net: Net, given: np.ndarray, target: np.ndarray, h: np.ndarray) -> tuple[float, Net, np.ndarray]:
    """(the sum of the losses, its gradient, the last h) of some letters (N, T) after the memory ``h`` (N, hidden)."""
    states = [h]
    for letter in given.T:
        states.append(np.tanh(net["read"][letter] + states[-1] @ net["keep"]))
    after = np.stack(states[1:], axis=1)  # (N, T, hidden)
    logits = after @ net["write"] + net["bias"]
    loss, slope = fx.cross_entropy_with_grad(logits, target, reduction="sum", ignore_index=IGNORED, out=logits)

    grad = {name: np.zeros_like(value) for name, value in net.items()}
    grad["write"] = np.einsum("nth,ntc->hc", after, slope)
    grad["bias"] = slope.sum(axis=(0, 1))
    back = np.zeros_like(h)  # d loss / d state, from later letters
    for t in reversed(range(given.shape[1])):
        back = (slope[:, t] @ net["write"].T + back) * (1.0 - states[t + 1] ** 2)
        np.add.at(grad["read"], given[:, t], back)
        grad["keep"] += states[t].T @ back
        back = back @ net["keep"].T
    return loss, grad, states[-1]


def read_through(net: Net, given: np.ndarray, target: np.ndarray, window: int) -> tuple[float, Net]:
    """The mean loss per letter and its truncated gradient: letters are read ``window`` at a time."""
    h = np.zeros((len(given), len(net["keep"])))
    total, grads = 0.0, {name: np.zeros_like(value) for name, value in net.items()}
    for begin in range(0, given.shape[1], window):
        part = np.s_[:, begin : begin + window]
        loss, grad, h = loss_and_grad(net, given[part], target[part], h)
        total += loss
        for name, value in grad.items():
            grads[name] += value
    letters = int((target != IGNORED).sum())
    return total / letters, {name: value / letters for name, value in grads.items()}


def train(steps: int = 400, hidden: int = 64, window: int = 6, rate: float = 0.01) -> tuple[float, float, float]:
    """(the loss at first, at last, and the least possible), by Adam on all words at once."""
    net = new_net(hidden, np.random.default_rng(0))
    given, target = spelled(WORDS)
    mean, square = ({name: np.zeros_like(value) for name, value in net.items()} for _ in range(2))
    first = read_through(net, given, target, window)[0]
    for step in range(1, steps + 1):
        _, grad = read_through(net, given, target, window)
        for name, g in grad.items():
            mean[name] += 0.1 * (g - mean[name])
            square[name] += 0.001 * (g * g - square[name])
            ahead = (square[name] / (1 - 0.999**step)) ** 0.5 + 1e-8
            net[name] -= rate * mean[name] / (1 - 0.9**step) / ahead
    last = read_through(net, given, target, window)[0]
    least = len(WORDS) * np.log(len(WORDS)) / (target != IGNORED).sum()  # each of 100 words is as likely as any other
    return first, last, float(least)


if __name__ == "__main__":
    first, last, least = train()
    print(f"nats per letter: {first:.1f} at first, {last:.2f} at last, {least:.2f} is the least possible")
