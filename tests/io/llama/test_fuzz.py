"""A short run of the fuzzer of llama.cpp's files."""

from tests.fuzzing import short_run


def test_mutated_llama_files_never_crash_hang_or_lose_rows():
    counts = short_run("tests.io.llama.fuzz_llama", 1500)
    assert min(counts["refused"], counts["read"], counts["read in part"]) > 100
