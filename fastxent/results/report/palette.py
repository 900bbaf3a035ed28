"""The colours of pages and plots, named by their use: (light theme, dark theme).

Plots are drawn in the light colours; `svg` replaces these by the CSS variables of the page, so that one file has both
themes. Each light colour therefore has one name only. The contrast of text on paper is at least 4.5 : 1.
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

PAPER, PANEL, INK, MUTED, GRID, ACCENT, SOFT, SECOND, THIRD, *_ = (light for light, _ in PALETTE.values())


def variables(theme: int) -> str:
    """Return CSS declarations of the colours.

    Args:
        theme: int. 0 for light, 1 for dark.
    """
    return " ".join(f"--{name}: {colours[theme]};" for name, colours in PALETTE.items())
