"""``fastxent warmup``: kernels compiled before they are needed."""

from __future__ import annotations

import click

from fastxent.cli.leave import say
from fastxent.cli.options import Command
from fastxent.cli.output import emit


@click.command(cls=Command, short_help="Compile the kernels of eval ahead of time.", epilog="""\b
Examples:
  fastxent warmup
  FASTXENT_CACHE_DIR=/opt/fastxent fastxent warmup       into an image, for all its users""")  # fmt: skip
def warmup() -> int:
    """Compile the kernels of eval ahead of time, and print the folder of their cache.

    Every dtype is compiled, for few and for many classes. Without it, the first eval of a dtype compiles its kernels
    in some seconds.
    """
    from fastxent.kernels.jit import writable_cache
    from fastxent.verbs.warmup import warm_up

    folder = writable_cache()
    warm_up(lambda name, done, total: say(f"[{done + 1}/{total}] {name}"))
    emit(str(folder))
    return 0
