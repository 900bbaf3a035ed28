"""A page opened in Chromium, with everything that it asked for and complained about."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait

SIZES = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
SHOTS = Path(__file__).parents[2] / "out" / "screenshots"


class Browser:
    """One Chromium; `open` loads a file, after which `requests` and `complaints` are those of that page."""

    def __init__(self, chrome: Chrome) -> None:
        self.chrome = chrome

    def open(self, path: Path, size: str = "desktop", theme: str = "light") -> None:
        """Load ``path`` at a size of `SIZES`, in a theme."""
        width, height, mobile = SIZES[size]
        self.command("Emulation.setDeviceMetricsOverride",
                     width=width, height=height, deviceScaleFactor=1, mobile=mobile)  # fmt: skip
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.chrome.get("about:blank")
        self.requests(), self.complaints()
        self.chrome.get(path.as_uri())
        loaded = "return performance.getEntriesByType('navigation')[0].loadEventEnd > 0"  # not yet, now and then
        WebDriverWait(self.chrome, 30).until(lambda _: self.run(loaded))

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.chrome.execute_cdp_cmd(name, parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a JavaScript function body."""
        return self.chrome.execute_script(script, *arguments)

    def requests(self) -> list[str]:
        """The addresses asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.chrome.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What the console said since the last call: errors, warnings, refused requests."""
        return [entry["message"] for entry in self.chrome.get_log("browser")]

    def screenshot(self, name: str) -> Path:
        """The whole page as a picture."""
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True)
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{name}.png"
        path.write_bytes(base64.b64decode(shot["data"]))
        return path
