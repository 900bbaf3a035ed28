"""A short run of the fuzzer of DistillKit's sequences."""

from tests.fuzzing import short_run


def test_mutated_sequences_never_crash_hang_or_give_impossible_metrics():
    counts = short_run("tests.io.teachers.fuzz_teachers", 300, bounds=False)
    assert min(counts["refused"], counts["read"], counts["read in part"]) > 30
