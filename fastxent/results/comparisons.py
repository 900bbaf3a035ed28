"""Plain values of several comparisons with one dump, and their JSON (schema ``fastxent/compare-many/1``)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fastxent.results import encoding
from fastxent.results.comparison import ComparedRows, CompareValues
from fastxent.results.encoding import plain
from fastxent.results.evaluation import SavedState
from fastxent.results.values import Values

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "fastxent/compare-many/1"
C = TypeVar("C", bound=CompareValues)


@dataclass(frozen=True, repr=False, eq=False)
class SetValues(Values, Generic[C]):
    """All fields of the result of several comparisons, with their JSON and Arrow forms."""

    base: str
    comparisons: dict[str, C]
    timing: dict[str, Any] | None = None
    state: SavedState | None = None

    def __getitem__(self, name: str) -> C:
        return self.comparisons[name]

    def _key(self) -> tuple[Any, ...]:
        return self.base, tuple(self.comparisons.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all dumps, the base first."""
        return self.base, *self.comparisons

    @property
    def rows(self) -> ComparedRows:
        """Counts of rows of the first comparison."""
        return next(iter(self.comparisons.values())).rows

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be wrong with the dumps or the options."""
        return tuple(dict.fromkeys(warning for found in self.comparisons.values() for warning in found.warnings))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "schema": SCHEMA,
            "base": self.base,
            "comparisons": [result.to_dict() for result in self.comparisons.values()],
            "timing": plain(self.timing),
        }

    def to_json(self, indent: int | None = 1) -> str:
        """Return `to_dict` as JSON text.

        Args:
            indent: int or None. Spaces per level; None for one line.
        """
        return encoding.written(self.to_dict(), indent)

    def to_arrow(self) -> pa.Table:
        """Return the tables of all comparisons, with a first column ``dump``."""
        import pyarrow as pa

        tables = []
        for name, result in self.comparisons.items():
            table = result.to_arrow()
            tables.append(table.add_column(0, "dump", pa.array([name] * table.num_rows, pa.string())))
        return pa.concat_tables(tables)


def shared(results: Iterable[CompareValues]) -> list[str]:
    """Return the metrics that all comparisons have, in the order of the first."""
    each = [list(result.metrics) for result in results]
    return [name for name in each[0] if all(name in names for names in each)]
