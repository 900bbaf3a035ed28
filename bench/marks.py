"""The marks a run is held to, and what a run has to say to each: rows of the table, made from saved figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Found = dict[str, Any]  # the figures of one case, as a benchmark keeps them in extra_info


@dataclass(frozen=True)
class Row:
    """One line: a figure against its mark and its aim. ``unit``: what the figure counts, such as "read"."""

    job: str
    peer: str
    ours: str
    figure: float | None
    unit: str
    mark: float | None
    aim: float | None
    most: bool = False  # the figure is at most the mark, not at least

    @property
    def verdict(self) -> str:
        if self.figure is None or self.mark is None:
            return "-"
        sign = -1 if self.most else 1
        if self.aim is not None and sign * self.figure >= sign * self.aim:
            return "aim"
        return "yes" if sign * self.figure >= sign * self.mark else "NO"


def _rate(value: float) -> str:
    return f"{value:.1f} GB/s" if value >= 0.95 else f"{value:.2f} GB/s"


def _peer(found: Found) -> str:
    if "best_peer" not in found:
        return "-"
    name = found["best_peer"]
    return f"{name} {_rate(found['peers_gb_per_second'][name])} ({found['ratio_to_best_peer']:.1f} x)"


def _classes(found: Found) -> str:
    return f"C = {found['classes']:,}".replace(",", " ")


# ---- kernels ---------------------------------------------------------------------------------------------------

KERNELS = [  # job, what it is called, mark and aim as fractions of the ceiling, the classes they hold for
    ("loss", "per-row loss", 0.75, 0.90, (1000, 32_000, 128_256)),
    ("record", "row record", 0.55, 0.85, (1000, 32_000, 128_256)),
    ("gradient", "loss + gradient", 0.60, 0.90, (1000, 32_000, 128_256)),
    ("log_softmax", "log_softmax", 0.60, 0.90, (1000, 32_000, 128_256)),
    ("loss", "per-row loss", 0.70, 0.90, (100,)),
    ("loss", "per-row loss", 0.50, 0.80, (2, 10)),
    ("fresh_loss", "per-row loss without out", 0.35, 0.80, (2, 10)),
    ("gradient", "loss + gradient", 0.35, 0.70, (2, 10)),
    ("binary", "binary with logits", 0.50, 0.85, (1,)),
]
_LIMIT = 0.8  # of one thread's ceiling: from here on a second thread may have nothing to add


def _kernels(found: list[Found]) -> Iterator[Row]:
    marked = [f for f in found if f.get("marked")]
    for job, label, mark, aim, classes in KERNELS:
        for f in marked:
            if f["job"] == job and f["dtype"] == "float32" and f["classes"] in classes:
                of, figure = f["bound"], f["fraction_of_ceiling"]
                if "fraction_of_numpy_copy" in f:  # the marks were set against array to array, as NumPy copies
                    of, figure = f"copy ({figure:.2f} of streaming)", f["fraction_of_numpy_copy"]
                yield Row(
                    f"{label}, {_classes(f)}", _peer(f), _rate(f["gb_per_second"]), figure, of,
                    mark, aim,
                )  # fmt: skip
    for f in marked:
        if "ratio_to_float32" in f:
            yield Row(
                f"{f['dtype']} loss, {_classes(f)}", _peer(f), _rate(f["gb_per_second"]), f["ratio_to_float32"],
                "float32 rows/s", 1.5, 2.0,
            )  # fmt: skip


def _threads(found: list[Found]) -> Iterator[Row]:
    """For each job the case that gains least, of those where one thread is not at the ceiling."""
    gains = [f for f in found if "speed_up" in f and f["one_thread_fraction_of_ceiling"] < _LIMIT]
    for job in dict.fromkeys(f["job"] for f in gains):
        f = min((f for f in gains if f["job"] == job), key=lambda f: f["speed_up"])
        one = f"one thread {f['one_thread_fraction_of_ceiling']:.2f} x {f['bound']}"
        name = f"1 -> {f['threads']} threads, {job} {f['dtype']} {_classes(f)}"
        yield Row(name, "-", one, f["speed_up"], "one thread", 1.7 / 2 * f["threads"], None)


# ---- files -----------------------------------------------------------------------------------------------------


def _files(found: list[Found]) -> Iterator[Row]:
    for f in found:
        if f["job"] != "evaluate":
            continue
        name, rate = f"evaluate {f['layout']}, {_classes(f)}", _rate(f["gb_per_second"])
        if f["layout"] == "none":
            yield Row(name, _peer(f), rate, f["ratio_to_pyarrow"], "pyarrow's read", 5.0, None)
            yield Row("  the same", "-", rate, f["ratio_to_file_read"], "file into memory", None, 0.8)
        elif "ratio_to_codec" in f:
            yield Row(name, _peer(f), rate, f["ratio_to_codec"], "codec alone", 0.7, 0.9)
        elif f["layout"] == "arrow-ipc":
            yield Row(name, _peer(f), rate, f["fraction_of_ceiling"], "read", 0.6, 0.85)
        else:
            yield Row(name, _peer(f), rate, f["ratio_to_file_read"], "file into memory", None, None)


def _binary(found: list[Found]) -> Iterator[Row]:
    for f in found:
        if f["job"] != "evaluate binary" or "best_peer" not in f:
            continue
        name, rate = f"evaluate binary, {f['layout']}", f["rows"] / f["seconds"] / 1e6
        mark, aim = (1.5, 3.0) if f["layout"] == "parquet" else (20.0, None)
        yield Row(name, _peer(f), f"{rate:.0f} M rows/s", f["ratio_to_best_peer"], f["best_peer"], mark, aim)
        if f["layout"] == "arrays":
            yield Row("  the same", "-", f"{rate:.0f} M rows/s", rate, "M rows/s", 100.0, 250.0)


def _pairs(found: list[Found]) -> Iterator[Row]:
    for f in found:
        if not f["job"].startswith("compare "):
            continue
        name, rate = f"{f['job']}, {_classes(f)}", _rate(f["gb_per_second"])
        if "times_aligned" in f:
            yield Row(name, "-", rate, f["times_aligned"], "aligned run", 2.0, None, most=True)
        elif "ratio_to_pyarrow" in f:
            yield Row(name, "-", rate, f["ratio_to_pyarrow"], "pyarrow's read of both", 3.0, None)
        else:
            yield Row(name, "-", rate, f["fraction_of_ceiling"], "read of both", 0.4, 0.7)


def _hidden(found: list[Found]) -> Iterator[Row]:
    for f in found:
        if f["job"] == "evaluate hidden":
            name, rate = f"evaluate hidden, {f['layout']} head, {_classes(f)}", _rate(f["gb_per_second"])
            yield Row(name, "-", rate, f["times_product"], "product alone", 1.25, None, most=True)
            if "times_torch" in f:
                yield Row("  the same", "torch", rate, f["times_torch"], "linear + loss", None, None, most=True)


# ---- fresh processes -------------------------------------------------------------------------------------------


def _startup(seconds: dict[str, float]) -> Iterator[Row]:
    torch = f"import torch {seconds['import torch']:.1f} s" if "import torch" in seconds else "-"
    marks = [("import", 0.1, 0.05), ("cached evaluate", 1.5, 0.8), ("cold evaluate", 20, 8),
             ("cached cross_entropy", 1.5, 0.8), ("cold cross_entropy", 20, 8)]  # fmt: skip
    for name, mark, aim in marks:
        value = seconds[name]
        label = name if name == "import" else f"{name.split()[0]} first result, {name.split()[1]}"
        yield Row(label, torch if name == "import" else "-", f"{value:.3f} s", value, "s", mark, aim, most=True)


def _memory(peak: dict[str, int]) -> Row:
    mb = {name: value / 1e6 for name, value in peak.items()}
    name = f"peak memory of {mb['memory']:.0f} MB, row group {mb['size']:.0f} MB"
    return Row(name, "-", f"{mb['peak']:.0f} MB", mb["peak"], "MB", mb["memory"] + 250, 300, most=True)


def rows(found: Iterable[Found], startup: dict[str, float], peak: dict[str, int]) -> list[Row]:
    """The whole table."""
    kept = list(found)
    return [
        *_kernels(kept),
        *_files(kept),
        *_binary(kept),
        *_pairs(kept),
        *_hidden(kept),
        _memory(peak),
        *_startup(startup),
        *_threads(kept),
    ]
