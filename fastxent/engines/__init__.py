"""Engines that run the work units of an evaluation on other machines; each needs its extra, imported on use."""
