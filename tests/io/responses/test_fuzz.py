"""A short run of the fuzzer of responses."""

from tests.fuzzing import short_run


def test_mutated_responses_never_crash_hang_or_give_impossible_metrics():
    counts = short_run("tests.io.responses.fuzz_responses", 300)
    assert min(counts["refused"], counts["read"]) > 50
