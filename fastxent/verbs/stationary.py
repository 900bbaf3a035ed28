"""Where the loss of a temperature is stationary: L(β) = mean(lse(βx) - βx_y) with β = 1/T is convex.

Its slope is L′(β) = (mean NLL - mean entropy)/β at that temperature, so a row record gives it without another kernel.
Convexity makes a change of its sign a proof: the only minimum lies between the two temperatures. Between them, the
polynomial through the slopes at nearby temperatures gives the minimum, and the next read proves it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

NODES = 9  # slopes that a polynomial goes through
_NOTHING = 1e-12  # nats: at low temperatures, where all rows are right, both terms are smaller, and so is their error


@dataclass
class Slopes:
    """The slopes of one group of rows at the temperatures that were read: T -> mean NLL - mean entropy.

    excess: slopes that the polynomial goes through.
    proofs: slopes so near to one another that only their signs count.
    """

    excess: dict[float, float] = field(default_factory=dict)
    proofs: dict[float, float] = field(default_factory=dict)

    def bracket(self) -> tuple[float, float]:
        """Return (low, high), temperatures that the minimum is proven to lie between; 0 or infinity for no bound."""
        slopes = [*self.excess.items(), *self.proofs.items()]
        low = max((t for t, e in slopes if e > _NOTHING), default=0.0)
        high = min((t for t, e in slopes if e < -_NOTHING), default=math.inf)
        return (low, high) if low < high else (math.nan, math.nan)

    def flat(self) -> bool:
        """Return True if no temperature changes the loss: of no rows, or of rows whose scores are all equal."""
        return not self.finite() or not any(abs(e) > _NOTHING for e in self.excess.values())

    def finite(self) -> bool:
        """Return True if every slope is defined: there are rows, and none has an infinite loss."""
        return all(map(math.isfinite, self.excess.values()))

    def estimate(self) -> tuple[float, float]:
        """Return (the temperature of the minimum, L″ there as a derivative by β); NaN without a bracket."""
        from scipy.interpolate import KroghInterpolator
        from scipy.optimize import brentq

        low, high = self.bracket()
        if not 0.0 < low < high < math.inf:
            return math.nan, math.nan
        middle = math.log(low * high) / 2
        nodes = sorted(self.excess, key=lambda t: abs(math.log(t) - middle))[:NODES]
        # Not scipy's BarycentricInterpolator, which orders the nodes at random.
        slope = KroghInterpolator([-math.log(t) for t in nodes], [t * self.excess[t] for t in nodes])
        ends = -math.log(high), -math.log(low)
        changes = slope(ends[0]) * slope(ends[1]) < 0  # not within a bracket that is narrower than the errors
        found = brentq(slope, *ends, xtol=1e-14, rtol=1e-14) if changes else -middle
        return math.exp(-found), float(slope.derivative(found)) * math.exp(-found)
