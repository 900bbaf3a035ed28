"""The colours of the page and of its figures, by what they are for: (light, dark).

Figures are drawn in the light ones; `svg` turns those into the variables of the page, so that both themes are drawn
by one file. Each light colour is therefore used for one thing only. Text reaches a contrast of 4.5 : 1 on paper.
"""

from __future__ import annotations

PALETTE = {
    "paper": ("#ffffff", "#11161d"),
    "panel": ("#f5f7fa", "#1a212b"),
    "ink": ("#1b2430", "#e7ebf1"),
    "muted": ("#5a6675", "#9ba8b9"),
    "grid": ("#d8dee6", "#323d4b"),
    "accent": ("#2a66cf", "#7fabff"),
    "soft": ("#bcd0f4", "#2f4c80"),
    "second": ("#b84e14", "#f2a06f"),
    "third": ("#7b3fb3", "#c8a0f5"),
    "good": ("#1c7540", "#69cf91"),
    "bad": ("#b3202c", "#ff8b8b"),
}

PAPER, PANEL, INK, MUTED, GRID, ACCENT, SOFT, SECOND, *_ = (light for light, _ in PALETTE.values())


def variables(theme: int) -> str:
    """CSS declarations of the light (0) or the dark (1) colours."""
    return " ".join(f"--{name}: {colours[theme]};" for name, colours in PALETTE.items())
