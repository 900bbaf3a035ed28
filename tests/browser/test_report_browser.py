"""The report in a real browser: silent, alone, quick, and alive where it says so; pictures of it for people."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import fastxent as fx
import report_cases
from browser.chromium import SIZES, Browser
from fastxent.results.report import html
from fastxent.results.result import EvalResult

DIGITS = Path(__file__).parents[2] / "examples" / "digits.parquet"
Written = Callable[[str, str], Path]

KEYS = """
const rows = [...document.querySelector(arguments[0]).querySelectorAll("tbody tr")];
const cells = rows.map((row) => row.cells[arguments[1]]);
return cells.map((cell) => cell.dataset.v ?? cell.textContent);
"""


@pytest.fixture(scope="module")
def digits() -> EvalResult:
    return fx.evaluate(str(DIGITS), by="fold", cluster="block")


@pytest.fixture(scope="module")
def digits_page(digits: EvalResult, written: Written) -> Path:
    return written("digits", html(digits))


@pytest.fixture(scope="module")
def large() -> EvalResult:
    return report_cases.large()


@pytest.fixture(scope="module")
def large_page(large: EvalResult, written: Written) -> Path:
    return written("large", html(large))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_opens_silently_alone_and_fits(
    browser: Browser, digits_page: Path, large_page: Path, size: str, theme: str
) -> None:
    for name, path in (("digits", digits_page), ("large", large_page)):
        browser.open(path, size, theme)
        assert browser.complaints() == []
        assert [url for url in browser.requests() if not url.startswith("data:")] == [path.as_uri()]
        assert browser.run("return performance.getEntriesByType('resource').length") == 0
        assert browser.run("return document.documentElement.scrollWidth") == SIZES[size][0]  # no sideways scrolling
        assert browser.screenshot(f"report-{name}-{size}-{theme}").stat().st_size > 50_000


def test_the_policy_of_the_page_forbids_requests(browser: Browser, digits_page: Path) -> None:
    browser.open(digits_page)
    browser.run("document.body.append(Object.assign(document.createElement('img'), {src: 'file:///nothing.png'}))")
    (complaint,) = browser.complaints()
    assert "violates the following Content Security Policy directive" in complaint


def test_themes_differ_in_page_and_figures(browser: Browser, digits_page: Path) -> None:
    colours = {}
    for theme in ("light", "dark"):
        browser.open(digits_page, theme=theme)
        colours[theme] = browser.run("""
            const style = (selector) => getComputedStyle(document.querySelector(selector));
            return [style("body").backgroundColor, style("body").color, style("svg text").fill];""")
    assert all(light != dark for light, dark in zip(*colours.values(), strict=True))


def test_a_million_rows_open_in_two_seconds(browser: Browser, large_page: Path) -> None:
    browser.open(large_page)
    milliseconds = browser.run("""
        const timing = performance.getEntriesByType("navigation")[0];
        return timing.loadEventEnd - timing.startTime;""")
    assert 0 < milliseconds < 2000


def test_the_figures_shown_are_those_of_the_json(browser: Browser, digits: EvalResult, digits_page: Path) -> None:
    values = json.loads(digits.to_json())
    browser.open(digits_page)
    assert browser.run(KEYS, "#metrics .table", 0) == list(values["metrics"])
    shown = browser.run(KEYS, "#metrics .table", 1)
    assert [float(value) for value in shown] == [metric["value"] for metric in values["metrics"].values()]
    cards = browser.run("return [...document.querySelectorAll('.card')].map((card) => card.innerText.split('\\n'))")
    assert cards[0][:2] == ["Cross-entropy (nats)", f"{values['metrics']['cross_entropy']['value']:.5g}"]
    assert browser.run(KEYS, "#slices .table", 0) == list(values["slices"]["fold"])
    tips = browser.run("return [...document.querySelectorAll('#calibration svg title')].map((tip) => tip.textContent)")
    for n in filter(None, values["calibration"]["count"]):
        assert sum(f"]: {n:,} rows" in tip for tip in tips) >= 2  # its bar and its point


def test_a_click_on_a_header_sorts(browser: Browser, large: EvalResult, large_page: Path) -> None:
    browser.open(large_page)
    browser.run("for (const select of document.querySelectorAll('select')) {"
                "select.value = '0'; select.dispatchEvent(new Event('change')); }")  # fmt: skip
    click = "document.querySelectorAll(arguments[0] + ' th button')[arguments[1]].click()"
    expected = sorted(part.metrics["cross_entropy"].value for part in large.slices["language"].values())
    browser.run(click, "#slices", 2)
    assert [float(v) for v in browser.run(KEYS, "#slices .table", 2)] == expected[::-1]
    browser.run(click, "#slices", 2)
    assert [float(v) for v in browser.run(KEYS, "#slices .table", 2)] == expected
    sorted_by = "return [...document.querySelectorAll('#slices th')].map((th) => th.getAttribute('aria-sort'))"
    assert [state for state in browser.run(sorted_by) if state] == ["ascending"]
    browser.run(click, "#slices", 0)
    names = [f"language {i}" for i in range(200)]  # 10 comes after 9
    assert browser.run(KEYS, "#slices .table", 0) == names
    browser.run(click, "#classes", 1)
    assert [int(v) for v in browser.run(KEYS, "#classes .table", 1)] == sorted(large.per_class.support, reverse=True)


def test_undefined_figures_sort_last_either_way(browser: Browser, written: Written) -> None:
    browser.open(written("broken", html(report_cases.broken())))
    click = "document.querySelectorAll('#slices th button')[2].click()"
    keys = (
        "return [...document.querySelectorAll('#slices table')[0].tBodies[0].rows].map((row) => row.cells[2].innerText)"
    )
    for order in ("down", "up"):
        browser.run(click)
        shown = browser.run(keys)
        assert shown[-1] == "–"
        assert shown.index("inf") == (0 if order == "down" else 1)
    assert browser.complaints() == []


def test_rows_are_filtered_and_leafed_through(browser: Browser, large_page: Path) -> None:
    browser.open(large_page)
    place = "return document.querySelector('#slices .place').textContent"
    assert browser.run(place) == "1–25 of 200"
    browser.run("document.querySelectorAll('#slices .pages button')[1].click()")
    assert browser.run(place) == "26–50 of 200"
    assert len(browser.run(KEYS, "#slices .table", 0)) == 25
    search = ("const input = document.querySelector('#slices input'); input.value = arguments[0];"
              "input.dispatchEvent(new Event('input'));")  # fmt: skip
    browser.run(search, "GUAGE 19")
    assert browser.run(place) == "1–11 of 11"
    assert set(browser.run(KEYS, "#slices .table", 0)) == {"language 19", *(f"language 19{i}" for i in range(10))}
    browser.run(search, "nothing of the kind")
    assert browser.run(place) == "none"
    browser.run(search, "")
    assert browser.run(place) == "1–25 of 200"
    assert browser.run("return document.querySelector('#classes .place').textContent") == "1–25 of 1,000"


def test_hostile_names_run_nothing(browser: Browser, written: Written) -> None:
    path = written("hostile", html(report_cases.hostile()))
    browser.open(path)  # an alert would make the next command fail
    assert browser.run("return document.scripts.length") == 1
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]


def test_it_prints(browser: Browser, digits_page: Path) -> None:
    browser.open(digits_page, theme="dark")
    pdf = base64.b64decode(browser.command("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF")
    browser.command("Emulation.setEmulatedMedia", media="print",
                    features=[{"name": "prefers-color-scheme", "value": "dark"}])  # fmt: skip
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.command("Emulation.setEmulatedMedia", media="")
    assert paper == "rgb(255, 255, 255)"
