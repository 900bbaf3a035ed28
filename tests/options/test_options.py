"""Options of another type or out of range: one line that names the option and the value, before any row is read."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import fastxent as fx
from fastxent.options import runs
from fastxent.options.declared import OPTIONS, default
from fastxent.options.option import declarations

DUMP = {"logits": np.eye(3), "target": [1, 2, 1], "w": [1.0, 2.0, 3.0]}
WRONG: list[tuple[str, Any]] = [
    *(("temperature", v) for v in ("1", None, True, 0, -1.0, math.nan, math.inf, [1.0], np.ones(2))),
    *(("label_smoothing", v) for v in ("0", None, False, -0.1, 1.1, math.nan)),
    *(("softcap", v) for v in ("30", True, 0.0, math.inf)),
    *(("clip_eps", v) for v in ("0", True, -1e-9, 0.5, math.nan)),
    *(("ignore_index", v) for v in (None, "-100", -100.0, True, 2**63, [-100])),
    *(("bins", v) for v in (15.0, "15", None, True, 0, 10_001, [15])),
    *(("top_k", v) for v in (2.5, (1, 2.5), None, True, "5", 0, (), [[1]], np.array([1.0]))),
    *(("class_weight", v) for v in ([math.inf, 1, 1], [math.nan, 1, 1], [-1, 1, 1], ["1", 1, 1], [True] * 3, "abc", 3,
                                    [[1, 2, 3]], [[1], [2, 3], 4], [1, 2], [None, 1, 1])),
    *(("class_mask", v) for v in ("101", [1, 0, 2], ["1", "0", "1"], [1, 0], [None] * 3, 5, [math.nan, 1, 1])),
    *(("classes", v) for v in ("abc", ["a", "b"], ["a", "b", "a"], [0, 1, 2], 3, [None] * 3)),
    *(("by", v) for v in (3, [3], True, {3: 1}, b"w", [["w"]])),
    *(("metrics", v) for v in (3, None, [], [3], ["accuracy", None], "acuracy")),
    *((name, v) for name in ("head", "bias") for v in (3, True, "", b"x", {})),
    *((name, v) for name in ("target", "cluster", "weight", "n_bytes", "where") for v in (3, True, ["w"], b"w")),
    *(("logits", v) for v in (3, None, [3], [], True)),
    *(("input", v) for v in ("prob", None, 1, ["probs"])),
    *(("on_bad_row", v) for v in ("ignore", None, True)),
]  # fmt: skip
RUNNING: list[tuple[str, Any]] = [
    *(("threads", v) for v in ("2", 2.0, True, 0, 10_000, [1])),
    *(("memory", v) for v in (None, True, "much", [1], 10)),
    ("progress", 3),
]
FILES: list[tuple[str, Any]] = [("per_row", 3), ("per_row", True), ("resume", 3), ("id", 3), ("id", ["w", 3])]


KINDS = [
    runs.EvaluateOptions, runs.CompareOptions, runs.TransformOptions, runs.ConvertOptions, runs.PlanOptions,
    runs.TemperatureOptions,
]  # fmt: skip


def test_a_configuration_has_every_declared_option():
    # How a file is read is not a part of it. The task is that of the columns, unless it is given. Only `compare` has
    # renormalize and options of the other dump. The number of classes is that of the dump, and so is whether classes
    # have numbers.
    declared = [name for name in OPTIONS if name not in ("logits_dtype", "task", "n_classes")]
    found = [
        "n_classes",
        "open_classes",
        "renormalize",
        "full_logits",
        "logits_b",
        "head_b",
        "bias_b",
        "task",
        "temperature_by",
        "temperature_keys",
        "temperature_values",
        *declared,
    ]
    assert sorted(field.name for field in fields(fx.EvalConfig)) == sorted(found)
    config = fx.EvalConfig(n_classes=3)
    for name in declared:
        assert getattr(config, name) == default(name)
        assert OPTIONS[name].check(name, getattr(config, name)) == getattr(config, name), "a checked value is valid"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 2, "input": "probs"}, "temperature requires input='logits', got temperature=2.0 and "),
        ({"softcap": 30, "input": "log_probs"}, "softcap requires input='logits', got softcap=30.0 and "),
        ({"class_mask": np.array([1, 1, 0]), "input": "probs"}, "class_mask requires input='logits', got class_mask="),
        ({"clip_eps": 0.0}, "clip_eps requires input='probs' or 'log_probs', got clip_eps=0.0 and input='logits'"),
    ],
)  # fmt: skip
def test_options_of_another_kind_of_scores(options, message):
    logits, target = np.full((2, 3), 1 / 3), [0, 1]
    runs = [fx.evaluate, fx.cross_entropy, *([] if "clip_eps" in options else [fx.row_statistics])]
    for run, given in zip(runs, [(DUMP,), (logits, target), (logits, target)], strict=False):
        with pytest.raises(fx.ConfigError, match=f"^{re.escape(message)}"):
            run(*given, **options)
    with pytest.raises(fx.ConfigError, match=r"^z_loss requires input='logits', got z_loss=0.1 and input='probs'$"):
        fx.cross_entropy(logits, target, z_loss=0.1, input="probs")
    assert fx.cross_entropy(logits, target, temperature=1, softcap=None, z_loss=0, input="probs") > 0, "the defaults"


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_valid(kind):
    for name, option in declarations(kind).items():
        value = option.check(name, option.default)
        assert option.check(name, value) == value, name


def one_line(error: pytest.ExceptionInfo[fx.FastxentError], name: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 200
    assert name in text


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_of_a_figure(name, value, tmp_path):
    for run in (
        lambda **o: fx.evaluate(DUMP, **o),
        lambda **o: fx.transform(DUMP, tmp_path / "x.parquet", output="softmax", **o),
        lambda **o: fx.plan(str(tmp_path), **o),
    ):
        with pytest.raises((fx.ConfigError, fx.ColumnError, fx.SourceError)) as error:
            run(**{name: value})
        if not isinstance(error.value, fx.SourceError):  # a folder of no files
            one_line(error, name.removesuffix("s"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "value"), [*RUNNING, *FILES])
def test_of_a_run(name, value):
    with pytest.raises(fx.ConfigError) as error:
        fx.evaluate(DUMP, **{name: value})
    one_line(error, name)


@pytest.mark.parametrize(("name", "value"), [*RUNNING, ("keep", 3), ("dtype", "int8"), ("dtype", 3)])
def test_of_files_that_are_written(name, value, tmp_path):
    for write in (fx.transform, fx.convert):
        with pytest.raises(fx.ConfigError) as error:
            write(DUMP, tmp_path / "x.parquet", **{name: value})
        one_line(error, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dest", [3, None, b"x.parquet", ["x.parquet"]])
def test_a_destination_that_is_not_a_path(dest):
    for write in (fx.transform, fx.convert):
        with pytest.raises(fx.ConfigError, match="dest must be a path, got "):
            write(DUMP, dest)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": np.float32(1), "bins": np.int64(15), "top_k": np.array([1, 5]), "ignore_index": np.int8(-100)},
        {"temperature": 1, "label_smoothing": 0, "top_k": [1, 5], "metrics": ["all"], "by": [], "where": None},
        {"class_weight": None, "class_mask": None, "temperature": np.array(1.0), "label_smoothing": np.float64(0)},
    ],
)
def test_numbers_of_any_library_are_one_configuration(options):
    assert fx.evaluate(DUMP, **options).state.to_bytes() == fx.evaluate(DUMP).state.to_bytes()


def test_weights_and_masks_of_any_kind_are_one_configuration():
    weights = [[1, 2, 3], (1.0, 2.0, 3.0), np.float32([1, 2, 3]), np.array([1, 2, 3])]
    masks = [[1, 1, 0], [True, True, False], np.array([1.0, 1.0, 0.0]), np.array([True, True, False])]
    for name, values in (("class_weight", weights), ("class_mask", masks)):
        found = {fx.evaluate({**DUMP, "target": [1, 0, 1]}, **{name: value}).state.to_bytes() for value in values}
        assert len(found) == 1


def test_json_is_free_of_infinities_whatever_the_run():
    result = fx.evaluate(DUMP)
    result.timing["rows_per_second"] = math.inf
    result.timing["utilisation"] = [math.nan]
    assert '"rows_per_second": "inf"' in result.to_json()
    assert fx.EvalResult.from_json(result.to_json()).timing["utilisation"] == [None]
