"""DistillKit's compression of one token: k ids of few bits each, and their log-probabilities in descending order.

The first ``exact_k`` log-probabilities are stored as floats. The others are a sum of terms of their place (powers, a
root) and of residuals that are integers times a scale. The arithmetic is that of DistillKit's own decoder, in the same
float types; sums may differ from it by their last rounding.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastxent.errors import SourceError
from fastxent.io.storage.files import File
from fastxent.kernels.floats import FLOAT_TYPES, widened

CONFIG = "compression_config.yaml"
_MOST = 1 << 20  # ids of a token
_MOST_BITS = 57  # of one number, which 8 bytes hold wherever it begins
_DEGREES = range(33)


@dataclass(frozen=True)
class Bin:
    """Residuals of consecutive places that share a scale."""

    scale_dtype: str
    element_bits: int
    num_elements: int


@dataclass(frozen=True)
class Compression:
    """How tokens are compressed, as `CONFIG` names it. d: number of classes."""

    d: int
    k: int
    exact_k: int
    exact_dtype: str
    polynomial_terms: tuple[int | str, ...]
    term_dtype: str
    residual_bins: tuple[Bin, ...]
    delta_encoding: bool
    normalize_t: bool

    @property
    def index_bits(self) -> int:
        """Bits of an id."""
        return int(np.ceil(np.log2(np.float32(self.d))))

    @property
    def index_bytes(self) -> int:
        """Bytes of the ids of a token."""
        return (self.k * self.index_bits + 7) // 8

    @property
    def logprob_bytes(self) -> int:
        """Bytes of the log-probabilities of a token."""
        found = self.exact_k * FLOAT_TYPES[self.exact_dtype].width
        found += len(self.polynomial_terms) * FLOAT_TYPES[self.term_dtype].width
        for part in self.residual_bins:
            found += FLOAT_TYPES[part.scale_dtype].width + (part.num_elements * part.element_bits + 7) // 8
        return found

    @property
    def dtype(self) -> str:
        """The float type of decoded log-probabilities: the wider of those that they are made of."""
        kinds = [self.exact_dtype, *([self.term_dtype] if self.polynomial_terms else [])]
        return "float64" if "float64" in kinds else "float32"

    def ids(self, packed: np.ndarray) -> np.ndarray:
        """The ids of n tokens, int64 (n, k). packed: uint8 (n, index_bytes)."""
        return _unpacked(packed, self.index_bits, self.k)

    def logprobs(self, packed: np.ndarray) -> np.ndarray:
        """The log-probabilities of n tokens, (n, k) of `dtype`. packed: uint8 (n, logprob_bytes)."""
        at = 0

        def take(nbytes: int) -> np.ndarray:
            nonlocal at
            at += nbytes
            return packed[:, at - nbytes : at]

        def floats(count: int, dtype: str) -> np.ndarray:
            kind = FLOAT_TYPES[dtype]
            part = np.ascontiguousarray(take(count * kind.width)).view(kind.stored.newbyteorder("<"))
            return widened(part.astype(kind.stored, copy=False).reshape(len(packed), count), dtype)

        exact, places = floats(self.exact_k, self.exact_dtype), self.k - self.exact_k
        coefficients = floats(len(self.polynomial_terms), self.term_dtype)
        residual = np.zeros((len(packed), places))
        begin = 0
        with np.errstate(all="ignore"):  # what is not finite is a bad row
            for part in self.residual_bins:
                scale = floats(1, part.scale_dtype)
                bits, n = part.element_bits, part.num_elements
                whole = _unpacked(take((n * bits + 7) // 8), bits, n)
                steps = 2.0 * whole - 1.0 if bits == 1 else (whole - (1 << (bits - 1))).astype(np.float32)
                found = steps.astype(scale.dtype) * scale
                residual[:, begin : begin + n] = rounded(found, self.exact_dtype)
                begin += n
            rest = self._fit(coefficients, places) + residual if self.polynomial_terms else residual
            logprobs = np.concatenate([exact, rest.astype(self.dtype)], axis=1).astype(self.dtype)
            if self.delta_encoding:
                logprobs = rounded(np.cumsum(logprobs, axis=1, dtype=np.float32), self.exact_dtype)
        return logprobs.astype(self.dtype, copy=False)

    def _fit(self, coefficients: np.ndarray, places: int) -> np.ndarray:
        """The sum of the terms at each place, (n, places)."""
        kind = self.term_dtype
        wide = np.float64 if kind == "float64" else np.float32
        at = rounded(np.arange(places, dtype=wide), kind)
        if self.normalize_t and places > 1:  # as torch.linspace computes it: from either end
            step = rounded(np.array(1.0 / (places - 1)).astype(wide), kind)
            ends = rounded(at * step, kind), rounded(wide(1.0) - rounded(at[::-1] * step, kind), kind)
            at = np.where(np.arange(places) < places // 2, *ends)
        total = np.zeros((len(coefficients), places))
        for j, term in enumerate(self.polynomial_terms):
            power = np.sqrt(at) if term == "sqrt" else np.exp(at) if term == "exp" else at ** wide(term)
            total += rounded(rounded(power, kind) * coefficients[:, j : j + 1], kind)
        return rounded(total.astype(wide), kind)


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Float32 or float64 numbers rounded to a float type; in the type in which kernels compute with it."""
    if dtype != "bfloat16":
        return widened(values.astype(FLOAT_TYPES[dtype].stored), dtype)
    bits = values.astype(np.float32).view(np.uint32)
    even = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), np.float32(np.nan), even.view(np.float32)).astype(np.float32)


def _unpacked(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Whole numbers of a few bits each, most significant first: int64 (n, count). packed: uint8 (n, enough bytes)."""
    padded = np.zeros((len(packed), packed.shape[1] + 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    first = np.arange(count) * bits
    windows = np.lib.stride_tricks.sliding_window_view(padded, 8, axis=1)[:, first >> 3]
    words = np.ascontiguousarray(windows).view(">u8")[..., 0].astype(np.uint64)
    shift = (64 - bits - (first & 7)).astype(np.uint64)
    found: np.ndarray = (words >> shift & np.uint64((1 << bits) - 1)).astype(np.int64)
    return found


# ---- the file that names it ------------------------------------------------------------------------------------------


def compression_of(file: File) -> Compression:
    """The compression of a Parquet file, named by `CONFIG` beside it. `SourceError` if that is missing or invalid."""
    name, path = (posixpath.join(posixpath.dirname(text), CONFIG) for text in (file.name, file.path))
    beside = File(name, path, file.filesystem)
    try:
        with beside.open() as handle:
            data = handle.read(1 << 20)
    except (OSError, SourceError):
        raise SourceError(
            f"cannot read {file.name}: its lists are compressed by DistillKit, and {name} does not exist or cannot be "
            "read; put DistillKit's file of that name beside it"
        ) from None
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise SourceError(
            f"cannot read {name}: PyYAML is not installed; install it with: pip install 'fastxent[distillkit]'"
        ) from error
    try:
        return _checked(yaml.safe_load(data))
    except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise SourceError(f"cannot read {name}: it is not a compression of DistillKit: {why}") from None


def _checked(given: Any) -> Compression:
    """A compression whose numbers are possible, or ValueError."""
    if not isinstance(given, Mapping):
        raise ValueError("it must hold names and values")

    def whole(values: Mapping[str, Any], name: str, low: int, high: int) -> int:
        value = values[name]
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} must be an integer from {low} to {high}, got {_told(value)}")
        return value

    def dtype(values: Mapping[str, Any], name: str, default: str = "float32") -> str:
        value = values.get(name, default)
        if not isinstance(value, str) or value not in FLOAT_TYPES:
            raise ValueError(f"{name} must be one of {', '.join(FLOAT_TYPES)}, got {_told(value)}")
        return value

    def several(name: str, kind: type, what: str) -> list[Any]:
        values = given.get(name) or []
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise ValueError(f"{name} must be a list of {what}, got {_told(values)}")
        return values

    k = whole(given, "k", 1, _MOST)
    exact = whole(given, "exact_k", 0, k)
    terms = tuple(several("polynomial_terms", object, "terms"))
    for term in terms:
        if term not in ("sqrt", "exp") and not (type(term) is int and term in _DEGREES):
            rule = f"integers from 0 to {_DEGREES[-1]}, 'sqrt' or 'exp'"
            raise ValueError(f"polynomial_terms must be {rule}, got {_told(term)}")
    bins = tuple(
        Bin(
            dtype(part, "scale_dtype"),
            whole(part, "element_bits", 1, _MOST_BITS),
            whole(part, "num_elements", 1, k - exact),
        )
        for part in several("residual_bins", Mapping, "bins")
    )
    if sum(part.num_elements for part in bins) > k - exact:
        raise ValueError("residual_bins must have at most k - exact_k elements")
    return Compression(
        d=whole(given, "d", 2, 1 << 31), k=k, exact_k=exact, exact_dtype=dtype(given, "exact_dtype"),
        polynomial_terms=terms, term_dtype=dtype(given, "term_dtype"), residual_bins=bins,
        delta_encoding=bool(given.get("delta_encoding", True)), normalize_t=bool(given.get("normalize_t", False)),
    )  # fmt: skip


def _told(value: Any) -> str:
    """A value in an error: of a list or of names only the type, since YAML may make these as large as it likes."""
    return repr(value)[:60] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
