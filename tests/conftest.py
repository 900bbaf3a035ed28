"""The profile of property tests, and the program called in this process."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.cli.running import Cli

# None depends on a clock, as machines are busy and first calls compile.
settings.register_profile("fastxent", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fastxent")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line in this process: exit code, stdout, stderr."""
    from fastxent.cli.program import run

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
