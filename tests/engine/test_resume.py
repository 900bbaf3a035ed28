"""Runs that are stopped, killed and damaged, and go on to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

import dumps
import fastxent as fx
import mutants
from fastxent.engine import checkpoints as resume
from fastxent.options.declared import DEFAULTS
from fastxent.verbs.evaluation import Evaluation

OPTIONS = dict(dumps.OPTIONS, threads=2)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    (tmp_path / "in").mkdir()
    return [str(path) for path in dumps.files(tmp_path / "in")]


@pytest.fixture(autouse=True)
def every_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for each unit, however fast it was."""
    monkeypatch.setattr(resume, "_EVERY", 0.0)
    monkeypatch.setattr(resume, "_SHARE", 0.0)


def figures(result: fx.EvalResult) -> bytes:
    found = result.to_dict()
    return json.dumps({name: value for name, value in found.items() if name not in ("timing", "files")}).encode()


def interrupted(paths: list[str], folder: Path, after: int, **options) -> None:
    """A run that ends in an interrupt once ``after`` rows are done."""

    def progress(rows, *_):
        if rows > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fx.evaluate(paths, **{**OPTIONS, **options}, resume=folder, progress=progress)


def states(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.state"))


# ---- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_an_interrupted_run_goes_on_to_the_same_bits(paths, tmp_path, threads):
    whole = fx.evaluate(paths, **OPTIONS)
    folder = tmp_path / "deep" / "checkpoints"
    for after in (0, 100, 100, 400):
        interrupted(paths, folder, after, threads=threads)
    kept = len(states(folder))
    assert kept > 10
    result = fx.evaluate(paths[::-1], **{**OPTIONS, "threads": 3}, resume=folder)  # in another order, on other threads
    assert figures(result) == figures(whole)
    assert result.state.to_bytes() == whole.state.to_bytes()
    assert 200 <= result.timing["resumed_rows"] < dumps.ROWS
    again = fx.evaluate(paths, **OPTIONS, resume=folder)
    assert again.state.to_bytes() == whole.state.to_bytes()
    assert again.timing["resumed_rows"] == dumps.ROWS
    assert not list(folder.glob(".*"))


def test_finished_units_are_not_read_again(paths, tmp_path):
    whole = fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")
    for path in paths[1:]:  # all but the footers is wiped out; the first file tells how many classes there are
        stat = os.stat(path)
        with open(path, "r+b") as file:
            tail = file.seek(-8, os.SEEK_END)
            begin = tail - int.from_bytes(file.read(4), "little")
            file.seek(4)
            file.write(bytes(begin - 4))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert figures(fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")) == figures(whole)
    with pytest.raises(fx.SourceError):
        fx.evaluate(paths, **OPTIONS)


def test_progress_counts_what_was_done_before(paths, tmp_path):
    interrupted(paths, tmp_path / "c", 300)
    calls: list[tuple] = []
    fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c", progress=lambda *told: calls.append(told))
    assert [told[0] for told in calls] == sorted(told[0] for told in calls)
    assert calls[-1][:2] == (dumps.ROWS, dumps.ROWS)


def test_a_file_named_twice_counts_twice(paths, tmp_path):
    whole = fx.evaluate([paths[2], *paths], **OPTIONS)
    interrupted([paths[2], *paths], tmp_path / "c", 300)
    result = fx.evaluate([paths[2], *paths], **OPTIONS, resume=tmp_path / "c")
    assert result.state.to_bytes() == whole.state.to_bytes()


def test_shards_resume_each_in_a_folder_of_its_own(paths, tmp_path):
    interrupted(paths, tmp_path / "1", 60, shard="1/2")
    found = [fx.evaluate(paths, **OPTIONS, shard=f"{k}/2", resume=tmp_path / f"{k}").state for k in (1, 2)]
    assert fx.merge_states(found).to_bytes() == fx.evaluate(paths, **OPTIONS).state.to_bytes()
    with pytest.raises(fx.StateError, match="shard '1/2' there, '2/2' here"):
        fx.evaluate(paths, **OPTIONS, shard="2/2", resume=tmp_path / "1")


def test_a_bad_row_stops_a_resumed_run_too(paths, tmp_path):
    rows = dumps.table(50)
    at = rows.schema.get_field_index("target")
    pq.write_table(rows.set_column(at, "target", [[99] * 50]), tmp_path / "in" / "part-9.parquet")
    bad = [*paths, str(tmp_path / "in" / "part-9.parquet")]
    for _ in range(2):
        with pytest.raises(fx.BadRowError, match=r"part-9\.parquet, row group 0, row 0: target 99"):
            fx.evaluate(bad, **OPTIONS, resume=tmp_path / "c")
    assert fx.evaluate(bad, **OPTIONS, on_bad_row="skip", resume=tmp_path / "d").rows.bad == 50


def test_few_files_are_written_where_units_are_small(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "_EVERY", 60.0)
    fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")
    assert len(states(tmp_path / "c")) <= OPTIONS["threads"]


# ---- what is noticed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 2.0}, "temperature=1.0 there, 2.0 here"),
        ({"by": "kind"}, r"by=\['kind', 'doc'\] there, \['kind'\] here"),
        ({"class_weight": range(dumps.CLASSES)}, r"class_weight=None there, \[0.0, 1.0, 2.*… here"),
    ],
)
def test_another_configuration_is_refused(paths, tmp_path, options, message):
    fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")
    with pytest.raises(fx.StateError, match=f"c belongs to another run: {message}; .* delete this one to start again"):
        fx.evaluate(paths, **{**OPTIONS, **options}, resume=tmp_path / "c")


def test_other_files_are_refused(paths, tmp_path):
    folder = tmp_path / "c"
    fx.evaluate(paths, **OPTIONS, resume=folder)
    with pytest.raises(fx.StateError, match=r"part-6\.parquet is no longer among the files"):
        fx.evaluate(paths[:-1], **OPTIONS, resume=folder)
    pq.write_table(dumps.table(9), tmp_path / "in" / "new.parquet")
    with pytest.raises(fx.StateError, match=r"new\.parquet was not among the files"):
        fx.evaluate([*paths, str(tmp_path / "in" / "new.parquet")], **OPTIONS, resume=folder)
    stat = os.stat(paths[4])
    os.utime(paths[4], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(fx.StateError, match=r"part-4\.parquet has changed: it was written again"):
        fx.evaluate(paths, **OPTIONS, resume=folder)
    os.utime(paths[4], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    fx.evaluate(paths, **OPTIONS, resume=folder)
    rows = pq.read_table(paths[3])
    pq.write_table(rows, paths[3], row_group_size=7)
    with pytest.raises(fx.StateError, match=r"part-3\.parquet has changed: its size changed from \d+ to \d+ bytes"):
        fx.evaluate(paths, **OPTIONS, resume=folder)


def test_a_footer_that_changed_under_the_same_size_and_time_is_noticed(paths, tmp_path):
    fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")
    data, stat = bytearray(Path(paths[4]).read_bytes()), os.stat(paths[4])
    at = data.rindex(b"parquet-cpp-arrow")
    data[at : at + 7] = b"PARQUET"
    Path(paths[4]).write_bytes(data)
    os.utime(paths[4], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(fx.StateError, match="its footer is different"):
        fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")


def damages(data: bytes) -> dict[str, bytes]:
    middle = len(data) // 2
    return {
        "empty": b"", "cut": data[:middle], "last byte": data[:-1], "longer": data + b"\0", "zeros": bytes(len(data)),
        "flipped": data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :], "magic": b"X" + data[1:],
    }  # fmt: skip


@pytest.mark.parametrize("damage", damages(b"1234567890"))
def test_damaged_files_are_done_again(paths, tmp_path, damage):
    whole = fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")
    victims = states(tmp_path / "c")[::7]
    for victim in victims:
        victim.write_bytes(damages(victim.read_bytes())[damage])
    with pytest.warns(UserWarning, match="cannot use .* read again") as told:
        result = fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")
    assert len(told) == len(victims)
    assert result.state.to_bytes() == whole.state.to_bytes()
    assert 0 < result.timing["resumed_rows"] < dumps.ROWS
    assert fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c").timing["resumed_rows"] == dumps.ROWS


def test_a_file_that_is_there_twice_counts_once(paths, tmp_path):
    whole = fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")
    first = states(tmp_path / "c")[0]
    (tmp_path / "c" / f"{'0' * 24}.state").write_bytes(first.read_bytes())
    with pytest.warns(UserWarning, match="another file holds the same units"):
        assert figures(fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")) == figures(whole)


def test_what_others_keep_in_the_folder_is_left_alone(paths, tmp_path):
    folder = tmp_path / "c"
    whole = fx.evaluate(paths, **OPTIONS, resume=folder)
    other = fx.evaluate(paths[0], **{**OPTIONS, "temperature": 2.0}).state.to_bytes()
    first = states(folder)[0].read_bytes()
    kept = {"mine.state": other, f"{'a' * 24}.state": other, "copy.state": first, "x.state": b"?", ".mine.tmp": b"?"}
    for name, data in kept.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.state")
    os.mkfifo(folder / f"{'b' * 24}.state")  # nobody writes: who reads it waits for ever
    (folder / f".{'c' * 24}.tmp").write_bytes(b"of a write that was cut off")
    assert figures(fx.evaluate(paths, **OPTIONS, resume=folder)) == figures(whole)
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert not (folder / f".{'c' * 24}.tmp").exists()


@pytest.mark.parametrize("listing", ["[" * 100_000, "3", "[[1]]", '[["a",[],0,1,0]]', '[["a",0,0,1,true]]', "\x00"])
def test_checkpoints_that_list_nonsense_are_done_again(paths, tmp_path, listing):
    whole = fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")
    (victim, *_) = states(tmp_path / "c")
    _, state = resume._unpack(victim.read_bytes(), fx.EvalState.from_bytes)
    body = len(listing).to_bytes(8, "little") + listing.encode() + state.to_bytes()
    victim.write_bytes(resume._MAGIC + hashlib.sha256(body).digest() + body)
    with pytest.warns(UserWarning, match="cannot use .*: it is damaged; its rows are read again"):
        assert figures(fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")) == figures(whole)


def test_units_of_another_division_are_refused(paths, tmp_path):
    folder = tmp_path / "c"
    fx.evaluate(paths, **OPTIONS, resume=folder)
    (victim, *_) = states(folder)
    units, state = resume._unpack(victim.read_bytes(), fx.EvalState.from_bytes)
    shifted = [(file, group, first + 1, rows, k) for file, group, first, rows, k in units]
    victim.write_bytes(resume._pack(shifted, state))
    with pytest.raises(fx.StateError, match="divides the dump otherwise"):
        fx.evaluate(paths, **OPTIONS, resume=folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "fastxent/resume/1"}', "[" * 100_000])
def test_a_damaged_description_is_refused(paths, tmp_path, text):
    fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")
    (tmp_path / "c" / "run.json").write_text(text)
    with pytest.raises(fx.StateError, match=r"run\.json is damaged; delete .*c to start again"):
        fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")


def test_folders_that_cannot_serve(paths, tmp_path):
    before = sorted((tmp_path / "in").iterdir())
    with pytest.raises(fx.StateError, match=r"holds 'part-\d\.parquet' and no run\.json"):
        fx.evaluate(paths, **OPTIONS, resume=tmp_path / "in")
    assert sorted((tmp_path / "in").iterdir()) == before  # a lock left there would be a file of the dump
    with pytest.raises(fx.OutputError, match="for checkpoints: File exists"):
        fx.evaluate(paths, **OPTIONS, resume=paths[0])
    with pytest.raises(fx.OutputError, match="for checkpoints"):
        fx.evaluate(paths, **OPTIONS, resume="/proc/nowhere")
    with pytest.raises(fx.ConfigError, match="per_row cannot be combined with resume"):
        fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c", per_row=tmp_path / "rows.parquet")
    assert not (tmp_path / "c").exists()


def test_one_run_at_a_time(paths, tmp_path):
    told: list[str] = []

    def progress(*_):
        if not told:
            with pytest.raises(fx.StateError) as error:
                fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")
            told.append(str(error.value))

    fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c", progress=progress)
    assert told[0].endswith("c is in use by another run; wait for it, or name another folder")
    fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c")


def test_files_elsewhere_have_an_identity_too(paths):
    memory = fsspec.filesystem("memory")
    for name in paths[:4]:
        memory.pipe(f"/resumed/{Path(name).name}", Path(name).read_bytes())
    folder = Path(paths[0]).parent.parent / "c"
    whole = fx.evaluate("memory://resumed", **OPTIONS, resume=folder)
    assert whole.state.to_bytes() == fx.evaluate(paths[:4], **OPTIONS).state.to_bytes()
    units = fx.plan("memory://resumed", **dumps.OPTIONS)
    assert fx.evaluate("memory://resumed", **OPTIONS, resume=folder).timing["resumed_rows"] == whole.rows.total
    memory.pipe("/resumed/part-3.parquet", Path(paths[5]).read_bytes())
    with pytest.raises(
        fx.StateError, match=r"memory://.*part-3\.parquet has changed: its size changed from \d+ to \d+ bytes"
    ):
        fx.evaluate("memory://resumed", **OPTIONS, resume=folder)
    with pytest.raises(fx.SourceError, match="has changed since the plan was made"):
        units[-1].run()
    memory.rm("/resumed", recursive=True)


# ---- processes -------------------------------------------------------------------------------------------------------

KILLED = """
import os, random, signal, sys, threading, time
from pathlib import Path
import fastxent as fx
from fastxent.engine import checkpoints as resume
import dumps
resume._EVERY = resume._SHARE = 0.0

def run(folder, paths, told):
    def progress(rows, *_):
        time.sleep(0.003)
        os.write(told, b".")
    fx.evaluate(paths, **dumps.OPTIONS, threads=2, resume=folder, progress=progress)

def killed(folder, paths, rng, wait):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run(folder, paths, writer)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    os.read(reader, 1)
    while wait and not list(folder.glob("*.state")) and os.read(reader, 1):
        pass  # however slow the machine is, something is kept by now
    time.sleep(rng.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    os.close(reader)

rng, paths = random.Random(11), sys.argv[2:]
fx.evaluate(paths[1], **dumps.OPTIONS, threads=1)  # what is imported and loaded here, no child needs to load
assert threading.active_count() == 1
for anew in range(3):  # a run that is nearly done has few moments left
    folder, kept = Path(sys.argv[1]) / str(anew), 0
    for k in range(4):
        killed(folder, paths, rng, k == 3)
        assert len(list(folder.glob("*.state"))) >= kept
        kept = len(list(folder.glob("*.state")))
    assert kept > 0
"""


def test_killed_at_random_moments_it_ends_in_the_same_bits(paths, tmp_path):
    """A dozen kills, of which most come while units are read and files written; what was written is never lost.

    The runs are forks of one process that has loaded everything and started no thread.
    """
    whole = fx.evaluate(paths, **OPTIONS).state.to_bytes()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "c"), *paths],
                          capture_output=True, text=True, env=environment, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stderr
    for anew in range(3):
        result = fx.evaluate(paths, **OPTIONS, resume=tmp_path / "c" / str(anew))
        assert result.state.to_bytes() == whole
        assert result.timing["resumed_rows"] > 0


def test_control_c_says_how_to_go_on(paths, tmp_path):
    script = f"""
import contextlib, os, signal, sys
from fastxent.cli import finish
from fastxent.cli.program import main
from fastxent.engine import checkpoints as resume
resume._EVERY = resume._SHARE = 0.0
sent = []
@contextlib.contextmanager
def reporting(*_):
    def report(rows, *rest):
        if rows > 300 and not sent:
            sent.append(rows)
            os.kill(os.getpid(), signal.SIGINT)
    yield report
if "--progress" in sys.argv:
    finish.progress_bar = reporting
sys.argv[1:] = ["eval", *{paths!r}, "--resume", {str(tmp_path / "c")!r}, *sys.argv[1:]]
main()
"""
    done = subprocess.run([sys.executable, "-c", script, "--progress"], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (130, "")
    folder = tmp_path / "c"
    assert done.stderr == (
        f"fastxent: interrupted; progress is saved in {folder}; run the same command again to continue\n"
    )
    assert states(folder)
    done = subprocess.run([sys.executable, "-c", script, "--format", "json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["metrics"] == fx.evaluate(paths).to_dict()["metrics"]


def test_mutants_of_a_folder_are_refused_or_read_again(paths, tmp_path):
    """Whatever a description or a list of units says, the run goes on to the same bits or ends in one line."""
    folder = tmp_path / "c"
    whole = fx.evaluate(paths, **OPTIONS, resume=folder)
    job = Evaluation.open(paths, {**DEFAULTS, **dumps.OPTIONS})
    description = json.loads((folder / "run.json").read_text())
    (victim, *_) = states(folder)
    sound = victim.read_bytes()
    units, state = resume._unpack(sound, fx.EvalState.from_bytes)
    rng = random.Random(4)
    refused = read = 0
    for _ in range(24):
        try:
            changed = mutants.changed(description, rng)
            listing = mutants.text(mutants.changed(json.loads(json.dumps(units)), rng)).encode()
        except (LookupError, TypeError):  # the second change did not fit what the first had left
            continue
        (folder / "run.json").write_text(mutants.text(changed))
        body = len(listing).to_bytes(8, "little") + listing + state.to_bytes(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                resume.Checkpoints(folder, job).close()
                read += 1
            except fx.StateError as error:
                refused += "\n" not in str(error) and len(str(error)) < 600
            (folder / "run.json").write_text(json.dumps(description))
            victim.write_bytes(resume._MAGIC + hashlib.sha256(body).digest() + body)
            resume.Checkpoints(folder, job).close()
    assert refused > 10
    assert refused + read > 15
    victim.write_bytes(sound)
    assert figures(fx.evaluate(paths, **OPTIONS, resume=folder)) == figures(whole)
