"""``fastxent calibrate``, and ``--temperature @FILE``."""

import json

import numpy as np
import pytest

import fastxent as fx
from fastxent.cli.program import run
from tests.cli.running import DIGITS


def test_a_fit_is_printed_written_and_applied(tmp_path, capsys):
    fitted, report = tmp_path / "fit.json", tmp_path / "fit.html"
    arguments = ["--cluster", "block", "--by", "fold", "--output", str(fitted), "--report", str(report)]
    assert run(["calibrate", DIGITS, *arguments]) == 0
    out = capsys.readouterr().out
    fit = fx.TemperatureFit.from_json(fitted.read_text(encoding="utf-8"))
    assert out == repr(fit) + "\n"
    assert f"temperature {fit.temperature.value:.6g}, 95 % interval" in out
    assert "Reliability after" in report.read_text(encoding="utf-8")
    assert run(["report", str(fitted), "-o", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == report.read_text(encoding="utf-8")
    assert run(["eval", DIGITS, "--temperature", f"@{fitted}", "--format", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    expected = fx.evaluate(DIGITS, temperature=fit.temperature.value)
    assert result["metrics"]["cross_entropy"]["value"] == expected.metrics["cross_entropy"].value
    assert run(["calibrate", DIGITS, "--format", "markdown", "--quiet", "--verbose"]) == 0
    assert "| cross_entropy |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "No such file"),
        ("{", "cannot read the temperature"),
        ('{"schema": "fastxent/eval/1"}', "its schema is not"),
    ],
)
def test_a_file_that_holds_no_fit(text, told, tmp_path, capsys):
    path = tmp_path / "fit.json"
    if text is not None:
        path.write_text(text)
    assert run(["eval", DIGITS, "--temperature", f"@{path}"]) == 2
    assert told in capsys.readouterr().err


def test_a_fit_without_a_temperature_is_not_applied(tmp_path, capsys):
    np.save(tmp_path / "logits.npy", 5 * np.eye(3, dtype=np.float32))
    np.save(tmp_path / "target.npy", np.arange(3))
    assert run(["calibrate", str(tmp_path), "--output", str(tmp_path / "fit.json")]) == 0
    assert "No temperature from 1/4096 up is best" in capsys.readouterr().out
    assert run(["eval", str(tmp_path), "--temperature", f"@{tmp_path / 'fit.json'}"]) == 2
    assert "holds no temperature" in capsys.readouterr().err
    assert run(["eval", str(tmp_path), "--temperature", "x"]) == 2
    assert "'x' is not a valid float" in capsys.readouterr().err
