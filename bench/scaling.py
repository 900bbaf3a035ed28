"""What a dump of any size takes, from a few rates: the tables of docs/scaling.md.

    .venv/bin/python -m bench.scaling --core 2.5 --disk 3 --network 3

Rates in GB/s: of `evaluate` on one core with files in the page cache (``bench.gil``, or ``eval --verbose --threads
1``), of the disk and of the network of one machine, which has ``--cores`` and costs ``--price`` an hour.
"""

from __future__ import annotations

import argparse

LOGITS = (10**12, 10**14)
MACHINES = (1, 16, 256)
_STATE, _MERGE, _UNIT = 20e3, 1e-3, 256e6  # bytes and seconds of a unit's state (bench.states), logits of a unit


def table(core: float, disk: float, network: float, cores: int, price: float, width: int) -> list[str]:
    """Time and cost by the number of logits and of machines: the slowest of computing, disk and network decides."""
    rates = {"cores": core * cores, "disk": disk, "network": network}
    slowest = min(("cores", "disk"), key=lambda name: rates[name]), min(("cores", "network"), key=lambda n: rates[n])
    lines = [
        "| logits | bytes | machines | local disks | object store | cost there | states | merge, one process |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for logits in LOGITS:
        nbytes = logits * width
        for machines in MACHINES:
            local, remote = (nbytes / (rates[name] * 1e9 * machines) for name in slowest)
            units = nbytes / _UNIT
            lines.append(
                f"| {logits:.0e} | {nbytes / 1e12:g} TB | {machines} | {_time(local)} ({slowest[0]}) | "
                f"{_time(remote)} ({slowest[1]}) | {remote / 3600 * machines * price:,.0f} | "
                f"{units * _STATE / 1e9:.2g} GB | {_time(units * _MERGE)} |"
            )
    return lines


def _time(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in {"core": 2.5, "disk": 3.0, "network": 3.0, "price": 1.0}.items():
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--width", type=int, default=2, help="bytes of a logit")
    options = parser.parse_args()
    print(*table(**vars(options)), sep="\n")


if __name__ == "__main__":
    main()
