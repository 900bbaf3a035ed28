"""Headless Chromium and pages for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from browser.chromium import Browser


@pytest.fixture(scope="session")
def _chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or pytest.fail("no chromium; apt-get install chromium")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-component-update", "hide-scrollbars",
                 f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = shutil.which("chromedriver") or pytest.fail("no chromedriver; apt-get install chromium-driver")
    chrome = Chrome(options, ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def browser(_chrome: Chrome) -> Browser:
    return Browser(_chrome)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Writes a page once and says where."""

    def write(name: str, text: str) -> Path:
        path = tmp_path_factory.mktemp("page") / f"{name}.html"
        path.write_text(text, encoding="utf-8")
        return path

    return write
