"""A short run of the fuzzer of dumps of documents."""

from tests.fuzzing import short_run


def test_mutated_lists_never_crash_hang_or_give_impossible_metrics():
    counts = short_run("tests.verbs.fuzz_documents", 300, bounds=False)
    assert min(counts["refused"], counts["read"], counts["read in part"]) > 30
