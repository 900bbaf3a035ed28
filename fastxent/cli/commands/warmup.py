"""``fastxent warmup``: compile the kernels ahead of time."""

from __future__ import annotations

import click

from fastxent.cli.leave import say
from fastxent.cli.options import Command
from fastxent.cli.output import emit


@click.command(cls=Command, short_help="Compile the kernels of eval ahead of time.", epilog="""\b
Examples:
  fastxent warmup
  FASTXENT_CACHE_DIR=/opt/fastxent fastxent warmup     in an image: one cache for all users""")  # fmt: skip
def warmup() -> int:
    """Compile the kernels of eval ahead of time, and print the folder of their cache.

    The command compiles the kernels of every dtype, for few and for many classes. Without it, the first eval of a dtype
    takes some seconds longer.
    """
    from fastxent.kernels.jit import writable_cache
    from fastxent.verbs.warmup import warm_up

    folder = writable_cache()
    warm_up(lambda name, done, total: say(f"[{done + 1}/{total}] {name}"))
    emit(str(folder))
    return 0
