"""Functions of a dump: evaluate, compare, fit a temperature, transform, convert, plan."""
