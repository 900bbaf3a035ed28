"""The options of an evaluation, each declared once: name, type, default, check, help and form of the flag.

Everything else is derived from the declarations: the keywords and defaults of the verbs (with those of `runs`), the
shared keywords of the array functions, the defaults and checks of `EvalConfig`, and the flags of the command line.
"""

# Without `from __future__ import annotations`: the declarations are read from the annotations at run time.
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict, cast

from fastxent.options.checks import (
    Check,
    boolean,
    bucket_count,
    class_flags,
    class_names,
    class_weights,
    column_names,
    logits_columns,
    optional,
    real,
    several,
    temperature,
    tensor,
    text,
    whole,
    word,
)  # fmt: skip
from fastxent.options.choices import FloatName, Input, NamedTask, OnBadRow
from fastxent.options.option import Option, declarations

Names = str | Sequence[str] | None

SECTIONS = ("Columns", "Loss", "Metrics")  # headings in the help, in order
MOST_CLASSES = 2**31 - 1  # of a top-k dump: stands for any number of them
MOST_BINS = 10_000  # every slice has as many: more would take gigabytes and leave too few rows in each bin
CLASS_ID = whole("be an integer of 64 bits", low=-(2**63), high=2**63 - 1)


def column(help: str, default: str | None = None, section: str = "Columns") -> Option:
    """Return the declaration of an option that names a column."""
    return Option(default, optional(text("a column name")), help, section, metavar="COLUMN")


def columns(help: str, section: str = "Columns", shown: str | None = None, check: Check = column_names) -> Option:
    """Return the declaration of an option that names columns."""
    return Option(None, check, help, section, metavar="COLUMN,...", shown=shown, form="repeated")


InputKind = Annotated[Input, Option("logits", word(Input), help="Kind of the scores in --logits.", section="Columns")]
Logits = Annotated[
    str | Sequence[str],
    Option(
        "logits",
        logits_columns,
        help="Scores: a column of lists or of numbers, 'logit_*', or 'a,b,c'.",
        section="Columns",
        metavar="COLUMN",
        form="names",
    ),
]
LogitsDtype = Annotated[
    FloatName | None,
    Option(None, optional(word(FloatName)), help="Float type stored in a binary or uint16 column.", section="Columns"),
]
IgnoreIndex = Annotated[
    int,
    Option(
        -100,
        CLASS_ID,
        help="Target that marks a row to ignore.",
        section="Loss",
    ),
]
LabelSmoothing = Annotated[
    float,
    Option(
        0.0,
        real("be a number from 0 to 1", low=0.0, high=1.0),
        help="Share of the target to spread over all classes, from 0 to 1.",
        section="Loss",
        metavar="EPS",
    ),
]


class TargetOptions(TypedDict, total=False):
    """The cost of a row's target."""

    ignore_index: IgnoreIndex
    label_smoothing: LabelSmoothing
    clip_eps: Annotated[
        float | None,
        Option(
            None,
            optional(real("be a number of at least 0 and below 0.5", low=0.0, below=0.5)),
            help="Smallest probability of a target; needs --input probs or log_probs.",
            section="Loss",
            metavar="EPS",
            inputs=("probs", "log_probs"),
        ),
    ]


Softcap = Annotated[
    float | None,
    Option(
        None,
        optional(real("be a finite number above 0 or None", above=0.0)),
        help="Replace logits by S·tanh(logit/S), before the temperature.",
        section="Loss",
        metavar="S",
        inputs=("logits",),
    ),
]
ClassMask = Annotated[
    Any,
    Option(
        None,
        optional(class_flags),
        help="Flags 0/1, one per class; classes with 0 are excluded.",
        section="Loss",
        metavar="LIST|@FILE",
        form="list",
        entries=bool,
        per_class=True,
        inputs=("logits",),
    ),
]


class ShapeOptions(TypedDict, total=False):
    """The step from logits to probabilities."""

    temperature: Annotated[
        float | Any,
        Option(
            1.0,
            temperature,
            help="Divisor of the logits: a number, or @FILE from calibrate.",
            section="Loss",
            metavar="T|@FILE",
            form="fitted",
            inputs=("logits",),
        ),
    ]
    softcap: Softcap
    class_mask: ClassMask


Shift = Annotated[
    int,
    Option(
        0,
        whole("be an integer of at least 0", low=0, high=2**31 - 1),
        help="Positions between a prediction and its target; 1 for HF labels.",
        section="Columns",
        metavar="N",
    ),
]


class ScoreOptions(TypedDict, total=False):
    """The columns that rows are scored from."""

    logits: Logits
    target: Annotated[
        str | None,
        column("Targets: class ids, strings (--classes) or probabilities.", default="target"),
    ]
    shift: Shift


class HeadOptions(TypedDict, total=False):
    """The output head, of a dump of hidden states."""

    head: Annotated[
        str | Any,
        Option(
            None,
            optional(tensor),
            help="Output head (C, d); --logits then names hidden states.",
            section="Columns",
            metavar="FILE[:TENSOR]",
            inputs=("logits",),
        ),
    ]
    bias: Annotated[
        str | Any,
        Option(
            None,
            optional(tensor),
            help="Bias (C) that is added to --head times the hidden states.",
            section="Columns",
            metavar="FILE[:TENSOR]",
            inputs=("logits",),
        ),
    ]


class InputOptions(TypedDict, total=False):
    """What the scores are."""

    input: InputKind
    target_logprob: Annotated[
        str | None,
        column("Column of log-probabilities of the outcome, instead of logits."),
    ]
    ids: Annotated[
        str | None,
        column("Ids of a top-k dump, whose log-probabilities --logits names."),
    ]
    other: Annotated[
        str | None,
        column("Log-probabilities of all classes that a row does not list."),
    ]
    n_classes: Annotated[
        int | None,
        Option(
            None,
            optional(whole(f"be an integer from 1 to {MOST_CLASSES}", low=1, high=MOST_CLASSES)),
            help="Number of classes of a top-k dump.",
            section="Columns",
            metavar="N",
            shown="unknown",
        ),
    ]
    scores: Annotated[
        Names,
        columns("Columns of numbers whose means are reported."),
    ]
    task: Annotated[
        NamedTask | None,
        Option(
            None,
            optional(word(NamedTask)),
            help="Kind of the dump; only multilabel must be named.",
            section="Columns",
        ),
    ]
    target_ids: Annotated[
        bool,
        Option(
            False,
            boolean,
            help="Targets are lists of label ids.",
            section="Columns",
            form="switch",
        ),
    ]


class BesideOptions(TypedDict, total=False):
    """The columns beside the scores, and what the scores stand for."""

    logits_dtype: LogitsDtype
    classes: Annotated[
        Sequence[str] | None,
        Option(
            None,
            optional(class_names),
            help="Class names in order, for string targets and for display.",
            section="Columns",
            metavar="LIST|@FILE",
            form="list",
            per_class=True,
        ),
    ]
    by: Annotated[
        Names,
        columns("Columns whose values define slices with their own metrics."),
    ]
    cluster: Annotated[
        str | None,
        column("Column of documents or users, for clustered standard errors."),
    ]
    weight: Annotated[str | None, column("Column of sample weights.")]
    n_bytes: Annotated[
        str | None,
        column("Column of bytes of text per row; adds bits_per_byte."),
    ]
    where: Annotated[
        str | None,
        Option(
            None,
            optional(text("an expression")),
            help="Use only rows for which this holds, as in \"kind == 'code'\".",
            section="Columns",
            metavar="EXPR",
        ),
    ]


class WeightOptions(TypedDict, total=False):
    """The weights of the classes."""

    class_weight: Annotated[
        Any,
        Option(
            None,
            optional(class_weights),
            help="Weights of the loss, one per class.",
            section="Loss",
            metavar="LIST|@FILE",
            form="list",
            entries=float,
            per_class=True,
        ),
    ]


class MetricOptions(TypedDict, total=False):
    """The metrics."""

    metrics: Annotated[
        str | Sequence[str],
        Option(
            "all",
            several(text("names of metrics")),
            help="Metrics to compute, as in cross_entropy,accuracy.",
            section="Metrics",
            metavar="LIST",
            form="list",
        ),
    ]
    top_k: Annotated[
        int | Sequence[int],
        Option(
            (1, 5),
            several(whole("hold integers of at least 1", low=1)),
            help="Values of k for top_k_accuracy.",
            section="Metrics",
            metavar="LIST",
            form="list",
            entries=int,
        ),
    ]
    threshold: Annotated[
        float,
        Option(
            0.5,
            real("be a number from 0 to 1", low=0.0, high=1.0),
            help="Least probability of a positive prediction (binary, multilabel).",
            section="Metrics",
            metavar="P",
        ),
    ]
    bins: Annotated[
        int,
        Option(
            15,
            whole(f"be an integer from 1 to {MOST_BINS}", low=1, high=MOST_BINS),
            help="Number of calibration bins, of equal width.",
            section="Metrics",
            metavar="N",
        ),
    ]
    jackknife: Annotated[
        int,
        Option(
            20,
            bucket_count,
            help="Buckets of the jackknife, for intervals of ECE, MCC, ...; 0: none.",
            section="Metrics",
            metavar="K",
        ),
    ]
    on_bad_row: Annotated[
        OnBadRow,
        Option(
            "error",
            word(OnBadRow),
            help="Stop at a bad row (NaN, invalid target), or skip and count it.",
            section="Metrics",
        ),
    ]


class Options(
    TargetOptions,
    ShapeOptions,
    ScoreOptions,
    HeadOptions,
    InputOptions,
    BesideOptions,
    WeightOptions,
    MetricOptions,
    total=False,
):
    """The options of an evaluation; `evaluate` describes each of them."""


OPTIONS: Mapping[str, Option] = declarations(Options)
DEFAULTS = cast(Options, {name: option.default for name, option in OPTIONS.items()})


def default(name: str) -> Any:
    """Return the default of an option in its plain form."""
    return OPTIONS[name].check(name, OPTIONS[name].default)
