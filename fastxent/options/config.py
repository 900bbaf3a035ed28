"""The configuration of an evaluation: one frozen value with every option that can change a result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, get_args, get_type_hints

from fastxent.errors import ConfigError
from fastxent.options.checks import boolean, listed as listed, one_of, real_number, shown, whole_number
from fastxent.options.choices import Task
from fastxent.options.declared import MOST_BINS as MOST_BINS, MOST_CLASSES as MOST_CLASSES, OPTIONS, default
from fastxent.options.option import check_input
from fastxent.options.typed import check


def in_words(tensor: Any) -> str | None:
    """Return a tensor as a configuration holds it: its file, or the shape of an array."""
    if tensor is None or isinstance(tensor, str):
        return tensor
    return f"array of shape {tuple(getattr(tensor, 'shape', (len(tensor),)))}"


@dataclass(frozen=True)
class EvalConfig:
    """How rows are scored and grouped. Two states merge only if their configurations are equal.

    Defaults and checks are those of `fastxent.options.declared`. Column names are those of the source.
    """

    n_classes: int
    logits: str | tuple[str, ...] = default("logits")
    target: str | None = default("target")
    input: str = default("input")
    metrics: tuple[str, ...] = default("metrics")
    by: tuple[str, ...] = default("by")
    cluster: str | None = default("cluster")
    weight: str | None = default("weight")
    n_bytes: str | None = default("n_bytes")
    where: str | None = default("where")
    ignore_index: int = default("ignore_index")
    label_smoothing: float = default("label_smoothing")
    class_weight: tuple[float, ...] | None = default("class_weight")
    class_mask: tuple[bool, ...] | None = default("class_mask")
    temperature: float = default("temperature")
    softcap: float | None = default("softcap")
    clip_eps: float | None = default("clip_eps")
    top_k: tuple[int, ...] = default("top_k")
    bins: int = default("bins")
    jackknife: int = default("jackknife")
    on_bad_row: str = default("on_bad_row")
    classes: tuple[str, ...] | None = default("classes")
    threshold: float = default("threshold")
    target_logprob: str | None = default("target_logprob")
    scores: tuple[str, ...] = default("scores")
    target_ids: bool = default("target_ids")
    ids: str | None = default("ids")
    other: str | None = default("other")
    head: str | None = default("head")  # a file; words if it is an array
    bias: str | None = default("bias")
    shift: int = default("shift")
    open_classes: bool = False  # of a top-k dump: their number is unknown, or ids are strings without class names
    temperature_by: str | None = None  # the column whose values have temperatures of their own
    temperature_keys: tuple[str, ...] = ()  # these values, as `state.keys` has them
    temperature_values: tuple[float, ...] = ()  # their temperatures; other rows have ``temperature``
    task: str = "multiclass"
    renormalize: bool = True  # this and the next four: of `compare`
    full_logits: str | tuple[str, ...] | None = None  # those of the full dump beside a top-k dump
    logits_b: str | tuple[str, ...] | None = None
    head_b: str | None = None
    bias_b: str | None = None

    def __post_init__(self) -> None:
        n_classes = whole_number("n_classes", self.n_classes, "be an integer of at least 1", low=1)
        object.__setattr__(self, "n_classes", n_classes)
        for name in (field.name for field in fields(self) if field.name in OPTIONS and field.name not in _FOUND):
            option = OPTIONS[name]
            value = option.check(name, getattr(self, name))
            value = in_words(value) if name in ("head", "bias") else value
            object.__setattr__(self, name, value)  # a NumPy number becomes the Python number that it equals
        real_number("temperature", self.temperature)
        for value in self.temperature_values:
            real_number("temperature_values", value, "hold finite numbers above 0", above=0.0)
        if len(self.temperature_keys) != len(self.temperature_values):
            raise ConfigError("temperature_keys must have as many entries as temperature_values")
        one_of("task", self.task, get_args(Task))
        if not boolean("renormalize", self.renormalize) and (self.input != "log_probs" or not self.has_logits):
            raise ConfigError(
                "renormalize must be True, got False; only log-probabilities can be used as they are stored"
            )
        if self.head_b is not None and self.input != "logits":
            raise ConfigError(f"head_b requires input='logits', got {self.input!r}")
        _check_task(self)
        for name, option in OPTIONS.items():
            value = getattr(self, name, None)
            if option.per_class and value is not None and len(value) != n_classes:
                raise ConfigError(f"{name} must have {n_classes} entries, one per class, got {len(value)}")
        check_input(OPTIONS.items(), self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values, tuples as lists. Later options than `_FIRST` are omitted at their default.

        Because of that, states and results of earlier versions keep their bytes.
        """
        defaults = {field.name: field.default for field in fields(self) if field.name not in _FIRST}
        values = {k: v for k, v in asdict(self).items() if k not in defaults or v != defaults[k]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @property
    def partial(self) -> bool:
        """Whether rows list the log-probabilities of their likeliest classes only."""
        return self.ids is not None

    @property
    def has_logits(self) -> bool:
        """Whether rows hold scores, from which losses are computed."""
        return self.task in ("multiclass", "binary", "multilabel")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EvalConfig:
        """Return the configuration that `to_dict` gave ``values`` for."""
        names = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ConfigError(f"unknown option {unknown[0]!r}")
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        hints = get_type_hints(cls)
        for name, value in options.items():
            check(value, hints[name], name)
        return cls(**options)


# The options of the first version, which every configuration holds.
_FIRST = (
    "n_classes", "logits", "target", "input", "metrics", "by", "cluster", "weight", "n_bytes", "where", "ignore_index",
    "label_smoothing", "class_weight", "class_mask", "temperature", "softcap", "clip_eps", "top_k", "bins",
    "on_bad_row", "classes",
)  # fmt: skip
_LOSS = tuple(name for name, option in OPTIONS.items() if option.section == "Loss")
_FOUND = ("task", "n_classes")  # options that say what the dump must be; here they are what it is
_OF_SCORES = ("input", "shift", "head", "bias", *_LOSS, "classes", "top_k", "bins", "jackknife")
_OF_CLASSES = ("n_bytes", "class_weight", "class_mask", "softcap", "top_k")
# Options that need every class's score.
_OF_ALL = ("head", "bias", *(name for name in _LOSS if name != "ignore_index"), "threshold", "target_ids")
# Options that a task does not have, and why.
_REFUSED = {
    "multiclass": (("threshold",), "is for binary dumps, which hold one score per row, and task='multilabel'"),
    "binary": (_OF_CLASSES, "is for rows of one score per class"),
    "multilabel": (_OF_CLASSES, "is for rows of one score per class, of which one is right"),
    "likelihood": (("threshold", *_OF_SCORES), "is for rows of scores; target_logprob names log-probabilities"),
    "scores": (("threshold", "n_bytes", *_OF_SCORES), "is for rows of logits, and there are none"),
}  # fmt: skip


def _check_task(config: EvalConfig) -> None:
    """Raise ConfigError for options that are not options of the task."""
    _check_partial(config)
    if config.bias is not None and config.head is None:
        raise ConfigError(f"bias must not be given without head, got {shown(config.bias)}; name the weights with head")
    refused, rule = _REFUSED[config.task]
    for name in refused:
        value = getattr(config, name)
        if value != default(name):
            raise ConfigError(f"{name} must not be given, got {shown(value)}; it {rule}")
    if config.target_ids and config.task != "multilabel":
        raise ConfigError("target_ids must not be given, got True; it is for task='multilabel'")
    if config.task == "binary" and config.n_classes != 2:
        raise ConfigError(f"n_classes must be 2 for a binary dump, got {config.n_classes}")
    if config.task in ("binary", "multilabel") and config.input == "log_probs":
        raise ConfigError(
            f"input must be 'logits' or 'probs' for a {config.task} dump, got 'log_probs'; a log-probability near 0 "
            "does not determine that of the other class"
        )
    if (config.task == "likelihood") != (config.target_logprob is not None and not config.partial):
        raise ConfigError(f"target_logprob must be given for the task 'likelihood' only, got {config.task!r}")
    if len(set(config.scores)) < len(config.scores):
        raise ConfigError(f"scores must name each column once, got {shown(config.scores)}")


def _check_partial(config: EvalConfig) -> None:
    """Raise ConfigError for options that are not options of a top-k dump, or of none other."""
    if not config.partial:
        if config.full_logits is not None:
            raise ConfigError(
                f"full_logits must not be given without ids, got {shown(config.full_logits)}; name the ids with ids"
            )
        if config.other is not None or config.open_classes:
            raise ConfigError(f"other must not be given without ids, got {shown(config.other)}; name the ids with ids")
        return
    if config.task != "multiclass":
        raise ConfigError(f"ids cannot be combined with task={config.task!r}; omit task")
    if config.input != "log_probs" and config.full_logits is None:
        raise ConfigError(f"input must be 'log_probs' for a top-k dump, got {config.input!r}; omit input")
    if isinstance(config.logits, tuple):
        raise ConfigError(f"logits must name one column of lists beside ids, got {shown(config.logits)}")
    for name in _OF_ALL:
        value = getattr(config, name)
        if value != default(name):
            raise ConfigError(
                f"{name} must not be given, got {shown(value)}; it is for rows of one score per class, "
                "and a top-k dump lists some"
            )
