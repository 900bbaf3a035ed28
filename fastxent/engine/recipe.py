"""The interface between the engine and a computation: a recipe scores batches, and a state sums the scored rows.

The loop, checkpoints, work units and clusters run any `Recipe`. They know no metric, scorer or format.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from fastxent.io.batch import Batch, Unit
    from fastxent.state.coverage import Coverage

Key = tuple[str, int, int, int, int]
# ^ of a unit: file, row group (-1: none), first row, rows (-1: unknown), number among equal ones


class State(Protocol):
    """Exact sums of scored rows. Its contents do not depend on the order of rows, batches or states."""

    coverage: Coverage  # the parts of a sharded run whose rows it holds

    def add(self, rows: Any) -> Any:
        """Add the result of the scorer for one batch, in place."""
        ...

    def absorb(self, other: Self) -> Any:
        """Add another state, in place."""
        ...

    def to_bytes(self, compression: int = ...) -> bytes:
        """The state as bytes, for `Recipe.load`."""
        ...


@runtime_checkable
class Deferring(Protocol):
    """A state that adds some rows later than `State.add` is called."""

    def settle(self) -> None:
        """Add the rows that wait. A worker calls it after its last unit, so that workers do this side by side."""
        ...


S = TypeVar("S", bound=State)
S_co = TypeVar("S_co", bound=State, covariant=True)
S_contra = TypeVar("S_contra", bound=State, contravariant=True)


class Recipe(Protocol[S_co]):
    """Everything that a worker needs besides the rows. Picklable if units are sent to other machines."""

    @property
    def whole(self) -> bool:
        """Whether the logits of a batch are needed together, so that they come as one block."""
        ...

    @property
    def light(self) -> bool:
        """Whether a few sums are left of a scored batch, so that batches may have many rows."""
        ...

    def scorer(self) -> Callable[[Batch], Any]:
        """A function of a batch whose result `State.add` takes."""
        ...

    def empty(self) -> S_co:
        """The state of no rows."""
        ...

    def load(self, data: bytes) -> S_co:
        """The state of `State.to_bytes`; `StateError` if it is damaged or belongs to another recipe."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON-ready options: states of recipes with equal ones can be merged."""
        ...


class Ledger(Protocol[S]):
    """A record of finished units that outlives a run."""

    def claim(self, unit: Unit) -> Key | None:
        """The key of a unit that is to be done; None if it is finished."""
        ...

    def keep(self, units: list[Key], state: S, *, last: bool = True) -> bool:
        """Take over the state of finished units if that is due, and always if it is the ``last``."""
        ...

    def result(self) -> S:
        """The state of all units."""
        ...


class Watch(Protocol[S_contra]):
    """What follows the states of workers while a run is under way."""

    def look(self, worker: int, state: S_contra, *, left: bool = False) -> None:
        """Look at the state of a worker, on its thread, after a batch, or when it hands the state over (``left``)."""
        ...
