"""Details in a JSON result: what cannot be shown is refused, everything else is shown."""

import copy
import json

import numpy as np
import pytest

import fastxent as fx


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    rows = {"logits": rng.normal(size=(40, 4)).astype(np.float32), "target": rng.integers(0, 4, 40)}
    return json.loads(fx.evaluate(rows, worst=3).to_json())


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("most_confused", {"share": 0.0}, "share must be above 0"),
        ("most_confused", {"share": 5e-324}, "share must be above 0"),
        ("most_confused", {"target": [-1], "predicted": [1], "count": [2]}, "classes of at least 0"),
        ("most_confused", {"target": [0], "predicted": [1], "count": [0]}, "count must be at least 1"),
        ("most_confused", {"target": [0], "predicted": [1]}, "must have the same length"),
        ("confusion", {"n_classes": 10**9}, "n_classes must be from 1 to 1000"),
        ("confusion", {"n_classes": 3}, "must have classes below 3"),
        ("confusion", {"target": None}, "target must be a list"),
        ("confusion", {"count": [1.5]}, "count.0 must be a whole number"),
        ("confusion", {"count": [2**63]}, "count must have numbers that fit in 64 bits"),
        ("confusion", {"target": [-(2**63) - 1]}, "target must have numbers that fit in 64 bits"),
        ("confusion", {"rows": 1}, "unexpected keyword"),
        ("worst", {"loss": "x"}, "loss must be a number"),
        ("worst", {"target": -1}, "classes of at least 0"),
        ("worst", {"file": 3}, "file must be a text"),
    ],
)
def test_what_cannot_be_shown_is_refused(values, part, change, message):
    found = copy.deepcopy(values)
    (found[part][0] if part == "worst" else found[part]).update(change)
    with pytest.raises(fx.StateError, match=message):
        fx.EvalResult.from_dict(found)


def test_results_without_details_and_with_strange_names_are_shown(values, tmp_path):
    found = copy.deepcopy(values)
    found["worst"][0].update(id="\x1b[31m<script>", loss="inf")
    result = fx.EvalResult.from_dict(found)
    assert "\x1b" not in str(result)
    result.to_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "[31m&lt;script&gt;" in page
    assert "[31m<script>" not in page
    for part in ("confusion", "most_confused", "worst"):
        del found[part]
    assert fx.EvalResult.from_dict(found).worst == ()
