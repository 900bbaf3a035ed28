"""The options of the verbs beside those of an evaluation: how a run goes and what it writes, each declared once.

The keywords of each verb are a TypedDict. Keywords, defaults, checks and flags follow from it, as in `declared`.
"""

# Without `from __future__ import annotations`: the declarations are read from the annotations at run time.
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypedDict

from fastxent.options.checks import (
    boolean,
    column_names,
    function,
    given,
    logits_columns,
    optional,
    path,
    tensor,
    text,
    texts,
    two_names,
    whole,
    word,
)  # fmt: skip
from fastxent.options.choices import Engine, FloatName, How, Layout, OnOverflow, Output, Reduction
from fastxent.options.declared import (
    CLASS_ID,
    BesideOptions,
    ClassMask,
    HeadOptions,
    IgnoreIndex,
    Logits,
    LogitsDtype,
    MetricOptions,
    Names,
    Options,
    ScoreOptions,
    Shift,
    Softcap,
    column,
    columns,
)
from fastxent.options.option import Option
from fastxent.options.sizes import size
from fastxent.options.until import UntilOptions

THREADS = whole("be an integer from 1 to 1024", low=1, high=1024)
MOST_WORST = 10_000  # rows of largest loss
Progress = Callable[[int, int | None, int, int | None], None]  # rows done, of, bytes of logits done, of
AnyPath = str | os.PathLike[str]

Memory = Annotated[
    int | str,
    Option("512MB", size, help="Memory limit for data being processed.", section="Running", metavar="SIZE"),
]


class RunOptions(TypedDict, total=False):
    """The options of every run; they never change a result."""

    threads: Annotated[
        int | None,
        Option(
            None,
            optional(THREADS),
            help="Number of threads.",
            section="Running",
            metavar="N",
            shown="all processors",
        ),
    ]
    memory: Memory
    progress: Annotated[
        Progress | None,
        Option(
            None,
            optional(function("four numbers")),
            help="Show progress on stderr.",
            section="Running",
            form="switch",
            shown="on a terminal",
        ),
    ]


class SplitOptions(RunOptions, total=False):
    """The options of a run in several parts, or on several machines."""

    resume: Annotated[
        AnyPath | None,
        Option(
            None,
            optional(path),
            help="Checkpoint folder. To continue after a crash, run the command again.",
            section="Running",
            metavar="FOLDER",
        ),
    ]
    shard: Annotated[
        str | None,
        Option(
            None,
            optional(text("part K of N, as in '3/16'")),
            help="Evaluate only part K of N, as in 3/16; use with --state.",
            section="Running",
            metavar="K/N",
        ),
    ]
    engine: Annotated[
        Engine,
        Option("local", word(Engine), help="Run on threads, or on a Ray cluster (RAY_ADDRESS).", section="Running"),
    ]


class TargetsOptions(TypedDict, total=False):
    """The option of targets that are not in the dump."""

    targets: Annotated[
        AnyPath | Any,
        Option(
            None,
            given,
            help="Table of targets, and of other columns, for each row.",
            section="Columns",
            metavar="SOURCE",
        ),
    ]


class JoinOptions(TargetsOptions, total=False):
    """The options of targets that are not in the dump."""

    on: Annotated[
        Names,
        columns("Id columns by which rows of --targets are matched.", shown="by position"),
    ]


class PerRowOptions(TypedDict, total=False):
    """The options of the file of rows."""

    per_row: Annotated[
        AnyPath | None,
        Option(
            None,
            optional(path),
            help="Write the loss, rank, … of each row as Parquet.",
            section="Output",
            metavar="FILE",
            form="file",
        ),
    ]


class WorstOptions(TypedDict, total=False):
    """The options of the rows of largest loss."""

    worst: Annotated[
        int,
        Option(
            0,
            whole(f"be an integer from 0 to {MOST_WORST}", low=0, high=MOST_WORST),
            help="Number of rows of largest loss to report.",
            section="Output",
            metavar="N",
        ),
    ]
    id: Annotated[str | None, column("Column of row names, for --per-row and --worst.", section="Output")]


class LimitOptions(TypedDict, total=False):
    """The option of the first rows."""

    limit: Annotated[
        int | None,
        Option(
            None,
            optional(whole("be an integer of at least 1", low=1, high=2**62)),
            help="Read only the first N rows of the source, before --where.",
            section="Columns",
            metavar="N",
            shown="all rows",
        ),
    ]


class EvaluateOptions(
    Options, JoinOptions, LimitOptions, UntilOptions, PerRowOptions, WorstOptions, SplitOptions, total=False
):
    """The keywords of `evaluate`."""


class PlanOptions(Options, JoinOptions, LimitOptions, WorstOptions, total=False):
    """The keywords of `plan`."""

    unit_size: Annotated[int | str, Option("256MB", size)]
    memory: Memory


class CompareOptions(Options, TargetsOptions, SplitOptions, total=False):
    """The keywords of `compare`."""

    on: Annotated[
        Names,
        columns("Id columns by which rows are matched, in any order.", section="Compare", shown="by position"),
    ]
    how: Annotated[
        How,
        Option("exact", word(How), help="Stop at an id that only one dump has, or omit its row.", section="Compare"),
    ]
    id: Annotated[
        str | None,
        column("Column of row names, for the rows that changed most.", section="Compare"),
    ]
    logits_b: Annotated[
        str | Sequence[str] | None,
        Option(
            None,
            optional(logits_columns),
            help="Scores in the other dumps, if they are not in --logits.",
            section="Compare",
            metavar="COLUMN",
            form="names",
            shown="that of --logits",
        ),
    ]
    head_b: Annotated[
        str | Any,
        Option(
            None,
            optional(tensor),
            help="Output head of the other dumps.",
            section="Compare",
            metavar="FILE[:TENSOR]",
            shown="--head, without --logits-b",
        ),
    ]
    bias_b: Annotated[
        str | Any,
        Option(
            None,
            optional(tensor),
            help="Bias of --head-b.",
            section="Compare",
            metavar="FILE[:TENSOR]",
            shown="none",
        ),
    ]
    names: Annotated[
        Sequence[str],
        Option(("a", "b"), two_names, help="Names of the dumps.", section="Compare", metavar="LIST", form="list"),
    ]
    full_logits: Annotated[
        str | Sequence[str] | None,
        Option(
            None,
            optional(logits_columns),
            help="Scores of the dump of all classes beside a top-k dump.",
            section="Compare",
            metavar="COLUMN",
            form="names",
        ),
    ]
    renormalize: Annotated[
        bool,
        Option(
            True,
            boolean,
            help="Make rows of .kld files sum to 1; else llama.cpp's own rule.",
            section="Compare",
            form="switch",
        ),
    ]
    largest: Annotated[
        int,
        Option(
            20,
            whole("be an integer from 0 to 10000", low=0, high=10_000),
            help="Number of rows that changed most to report.",
            section="Compare",
            metavar="N",
        ),
    ]


class CompareManyOptions(CompareOptions, total=False):
    """The keywords of `compare_many`."""

    names: Annotated[  # type: ignore[misc]  # more than two
        Sequence[str] | None,
        Option(None, optional(texts), help="Names of the dumps, the base first.", section="Compare", metavar="LIST",
               form="list"),
    ]  # fmt: skip


class TransformOptions(Options, JoinOptions, RunOptions, total=False):
    """The keywords of `transform`."""

    output: Annotated[
        Output,
        Option(
            "log_softmax",
            word(Output),
            help="Values to write for every row.",
            section="Transform",
            flag="--kind",  # --output names the file of the result
        ),
    ]
    reduction: Annotated[
        Reduction,
        Option("mean", word(Reduction), help="Reduction of the loss whose gradient is written.", section="Transform"),
    ]
    dtype: Annotated[
        FloatName | None,
        Option(
            None,
            optional(word(FloatName)),
            help="Float type of the written values.",
            section="Transform",
            shown="that of the scores",
        ),
    ]
    keep: Annotated[
        Names,
        columns("Columns to copy to the new file.", section="Transform"),
    ]


class ConvertOptions(HeadOptions, JoinOptions, RunOptions, total=False):
    """The keywords of `convert`."""

    logits: Logits
    logits_dtype: LogitsDtype
    target: Annotated[
        str | None,
        column("Column of class ids, to compare the loss before and after.", default="target"),
    ]
    ignore_index: Annotated[
        int, Option(-100, CLASS_ID, help="Target of rows whose loss is not compared.", section="Columns")
    ]
    shift: Shift
    layout: Annotated[
        Layout | None,
        Option(
            None,
            optional(word(Layout)),
            help="Write rows as fixed-size binary, or as fixed-size lists.",
            section="Convert",
            shown="binary in Parquet, list in Arrow",
        ),
    ]
    dtype: Annotated[
        FloatName | None,
        Option(
            None,
            optional(word(FloatName)),
            help="Float type of the scores in the new file.",
            section="Convert",
            shown="that of the scores",
        ),
    ]
    keep: Annotated[
        Names,
        columns("Columns to copy to the new file.", section="Convert", shown="all", check=optional(column_names)),
    ]
    on_overflow: Annotated[
        OnOverflow,
        Option(
            "error",
            word(OnOverflow),
            help="Stop at a score too large for --dtype, or write infinity.",
            section="Convert",
        ),
    ]


class TemperatureOptions(ScoreOptions, HeadOptions, BesideOptions, MetricOptions, JoinOptions, RunOptions, total=False):
    """The keywords of `fit_temperature`: those of `evaluate` that do not change the loss that is minimised."""

    ignore_index: IgnoreIndex
    softcap: Softcap
    class_mask: ClassMask
    id: Annotated[
        str | None,
        column("Column of ids; rows with the same id are in the same fold."),
    ]
    folds: Annotated[
        int,
        Option(
            2,
            whole("be an integer from 2 to 20", low=2, high=20),
            help="Number of folds for the metrics after recalibration.",
            section="Metrics",
            metavar="N",
        ),
    ]
