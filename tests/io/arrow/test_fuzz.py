"""A short run of the fuzzer of Arrow files."""

from tests.fuzzing import short_run


def test_mutated_arrow_files_never_crash_hang_or_lose_rows():
    counts = short_run("tests.io.arrow.fuzz_arrow", 1000, bounds=False)
    assert min(counts["refused"], counts["read"]) > 200
