"""Short runs of the fuzzers of Parquet files."""

import pytest

from tests.fuzzing import short_run


@pytest.mark.parametrize(
    ("fuzzer", "count", "outcomes"),
    [
        ("fuzz_pages", 600, ("refused", "unchanged", "read", "no footer")),
        ("fuzz_files", 800, ("refused", "unchanged", "read")),
    ],
)
def test_mutated_files_never_crash_hang_or_pass(fuzzer, count, outcomes):
    counts = short_run(f"tests.io.parquet.{fuzzer}", count)
    assert min(counts[outcome] for outcome in outcomes) > 8  # it hits every part
