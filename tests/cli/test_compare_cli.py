"""``fastxent compare``: what it prints, what it writes, and how it exits."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from tests.cli.running import Cli, check_failure
from tests.verbs import pairs


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    paths = [folder / "a.parquet", folder / "b.parquet"]
    for path, table in zip(paths, pairs.both(), strict=True):
        pq.write_table(table, path, row_group_size=100)
    return [str(path) for path in paths]


def test_the_table(cli: Cli, dumps):
    code, out, err = cli("compare", *dumps, "--by", "kind", "--cluster", "doc", "--names", "base,new", "-q")
    assert (code, err) == (0, "")
    assert out.startswith("base → new · 331 rows · 319 used · 12 ignored · 23 classes · 40 clusters (doc)\n")
    assert re.search(r"metric +base +new +new - base +95 % interval +p\n", out)
    for text in ("KL(a‖b)", "Same top prediction: ", "Perplexity ratio: ", "right→wrong", "p (Holm)", "row that"):
        assert text in out
    assert max(map(len, out.splitlines())) <= 80


def test_json_and_markdown(cli: Cli, dumps, tmp_path):
    code, out, _ = cli("compare", *dumps, "--format", "markdown", "--output", str(tmp_path / "r.json"), "--id", "id")
    assert code == 0
    assert "| metric | a | b | b - a |" in out
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["schema"] == "fastxent/compare/1"
    result = fx.compare(*dumps, id="id")
    timing = {"timing": None}
    assert {**found, **timing} == {**result.to_dict(), **timing}
    assert found["files"] == [[dumps[0]], [dumps[1]]]
    table = result.to_arrow()
    assert table.num_rows == len(result.metrics) + 9
    assert table.column("difference")[0].as_py() == result.metrics["cross_entropy"].difference.value


@pytest.mark.parametrize(
    ("condition", "held"),
    [
        ("cross_entropy.difference>-100", True),
        ("cross_entropy.difference.ci95.low>100", False),
        ("accuracy.p_value<=1", True),
        ("kl_divergence_ab.p99.9<1e9", True),
        ("same_top_1<1%", False),
        ("flips.right_to_wrong>0", True),
        ("rows.only_a>0", False),
        ("kind=*:cross_entropy.adjusted_p_value>1", False),
        ("flips.z>0", True),  # NaN: there are no clusters
    ],
)
def test_conditions(cli: Cli, dumps, condition, held):
    code, _, err = cli("compare", *dumps, "--by", "kind", "--fail-if", condition, "--format", "none")
    assert code == int(held)
    assert ("failed: " in err) == held


def test_a_condition_on_nothing_is_refused_before_the_run(cli: Cli, dumps):
    check_failure(*cli("compare", *dumps, "--fail-if", "cross_entropy>1"), r"expected cross_entropy\.a, ")
    check_failure(*cli("compare", *dumps, "--fail-if", "same_top1>1"), "did you mean 'same_top_1'")
    check_failure(*cli("compare", *dumps, "--fail-if", "kind=a:accuracy.a>1"), "add --by kind")


def test_shards_merge(cli: Cli, dumps, tmp_path):
    states = [str(tmp_path / f"{k}.state") for k in (1, 2)]
    for k, state in enumerate(states, 1):
        assert cli("compare", *dumps, "--shard", f"{k}/2", "--state", state, "-q")[0] == 0
    code, out, _ = cli("merge", *states, "--format", "json")
    assert code == 0
    whole = fx.compare(*dumps).to_dict()
    assert json.loads(out)["metrics"] == whole["metrics"]
    check_failure(*cli("merge", states[0]), "shard")
    assert cli("eval", dumps[0], "--state", str(tmp_path / "e.state"), "-q")[0] == 0
    check_failure(*cli("merge", states[0], str(tmp_path / "e.state")), "cannot be merged|is whole")


def test_errors(cli: Cli, dumps, tmp_path):
    check_failure(*cli("compare", dumps[0]), "Missing argument 'B...'")
    check_failure(*cli("compare", dumps[0], str(tmp_path / "c.parquet")), "c.parquet")
    check_failure(*cli("compare", *dumps, "--output", dumps[1]), "b.parquet")
    check_failure(*cli("compare", *dumps, "--names", "a"), "names must be two different")


def test_report_and_log(cli: Cli, dumps, tmp_path):
    report, log = tmp_path / "r.html", tmp_path / "runs.jsonl"
    given = ["--report", str(report), "--log", f"jsonl:{log}", "--by", "kind", "--names", "base,<new>", "-q"]
    assert cli("compare", *dumps, *given)[0] == 0
    text = report.read_text()
    for shown in ("base → &lt;new&gt;", "KL(a‖b)", "Both dumps together", "p (Holm)"):
        assert shown in text
    assert "<new>" not in text
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["names"] == ["base", "<new>"]


def test_a_dump_may_be_compared_with_itself(tmp_path):
    for name in ("train.parquet", "test.parquet"):
        pq.write_table(pa.table({"logits": [[1.0, 2.0]] * 20, "target": [0, 1] * 10}), tmp_path / name)
    train, test = tmp_path / "train.parquet", tmp_path / "test.parquet"
    assert fx.compare(train, train).warnings == fx.compare(train, test).warnings == ()
    told = fx.compare([train, train], [test, test]).warnings[0]
    assert "train.parquet is named twice" in told


def test_the_help_does_not_show_options_that_are_refused(cli: Cli, dumps):
    shown = cli("compare", "--help")[1]
    assert "--cluster" in shown
    assert "--scores" in shown
    assert "--task" in shown
    assert cli("compare", *dumps, "--task", "binary")[0] == 2
    assert "--target-logprob" not in cli("transform", "--help")[1]


@pytest.fixture(scope="module")
def many(dumps, tmp_path_factory):
    third = tmp_path_factory.mktemp("more") / "c.parquet"
    pq.write_table(pairs.dump((pairs.A * 1.1).astype("f4")), third)
    return [*dumps, str(third)]


def test_several_dumps(cli: Cli, many, tmp_path):
    report, state, lines = (str(tmp_path / name) for name in ("r.html", "r.state", "runs.jsonl"))
    code, out, err = cli("compare", *many, "--by", "kind", "--report", report, "--state", state, "--log",
                         f"jsonl:{lines}", "--output", str(tmp_path / "r.json"), "-q")  # fmt: skip
    assert (code, err) == (0, "")
    assert out.startswith("base → 2 dumps · 331 rows · 319 used · 12 ignored · 23 classes\n")
    assert "p (Holm)" in out
    found = fx.CompareSet.from_json((tmp_path / "r.json").read_text())
    assert found.names == ("base", "b", "c")
    assert [json.loads(line)["names"] for line in (tmp_path / "runs.jsonl").read_text().splitlines()] == [
        ["base", "b"],
        ["base", "c"],
    ]
    page = (tmp_path / "r.html").read_text()
    assert "<title>" in page
    assert cli("report", str(tmp_path / "r.json"), "-o", str(tmp_path / "again.html"), "-q")[0] == 0
    assert (tmp_path / "again.html").read_text() == page
    assert cli("merge", state, "-q")[1].startswith("base → 2 dumps")
    out = cli("compare", *many, "--names", "x,y,z", "--format", "markdown", "-q")[1]
    assert "| y |" in out


@pytest.mark.parametrize(
    ("condition", "held"),
    [
        ("cross_entropy.difference>-100", 2),
        ("dump=b:cross_entropy.difference>-100", 1),
        ("dump=*:accuracy.adjusted_p_value<=1", 2),
        ("dump=c:kind=a:accuracy.b<0", 0),
        ("dump=c:kind=*:accuracy.b>=0", 3),
        ("rows.used<319", 0),
    ],
)
def test_a_condition_on_one_of_several_dumps(cli: Cli, many, condition, held):
    code, _, err = cli("compare", *many, "--by", "kind", "--fail-if", condition, "-q")
    assert code == (1 if held else 0)
    assert err.count("failed: ") == held


def test_conditions_and_names_of_several_dumps_are_checked_before_the_run(cli: Cli, many):
    check_failure(
        *cli("compare", *many, "--fail-if", "dump=q:accuracy.b<0"), "there is no dump 'q'; expected one of b, c"
    )
    check_failure(*cli("compare", *many[:2], "--fail-if", "dump=b:accuracy.b<0"), "there are no slices of 'dump'")
    check_failure(*cli("compare", *many, "--names", "x,y"), r"3 in all, got \('x', 'y'\)")
    assert cli("compare", many[0])[0] == 2
