"""Chromium, as somebody uses it at one page: headless, driven through Debian's chromium-driver.

Nothing is looked for or fetched: both programs are named by their paths, so that selenium's own manager does not
run, and the browser resolves no names but those that tests make up.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.selenium_manager import SeleniumManager
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = shutil.which("chromedriver")
NAMED = "truc.example"
"""A name of this machine that no browser takes for its own: pages of it over http are not secure contexts."""

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None,
    reason="Chromium is not here: apt-get install chromium chromium-driver",
)

OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which root's Chromium insists on
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-features=HttpsUpgrades",
    "--no-first-run",
    "--no-proxy-server",
    f"--host-resolver-rules=MAP {NAMED} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


FINDINGS = """
const said = (item, language) => item.querySelector(`span[lang=${language}]`).innerText;
const items = [...document.querySelectorAll("#result ol > li")];
return items.map((item) => [item.className, said(item, "vi"), said(item, "en")]);
"""


class Browser:
    """One window."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    # -- what a user does ---------------------------------------------------------------------------

    def open(self, address: str) -> None:
        """Open a page afresh; what the last one left in the logs is forgotten."""
        self.driver.get("about:blank")
        self.console(), self.requests()
        self.driver.get(address)

    def at(self, id_: str) -> WebElement:
        return self.driver.find_element(By.ID, id_)

    def button(self) -> WebElement:
        return self.driver.find_element(By.TAG_NAME, "button")

    def choose(self, **files: Path | None) -> None:
        """Choose files by the ids of the page's fields."""
        for id_, file in files.items():
            if file is not None:
                self.at(id_).send_keys(str(file))

    def press(self) -> str:
        """Press the button; all that the page shows for an answer."""
        self.button().click()
        return self.answer()

    def answer(self) -> str:
        wait = WebDriverWait(self.driver, 60, poll_frequency=0.02)
        return wait.until(lambda _: self.at("result").text, "the page shows no answer")

    def verify(self, **files: Path | None) -> str:
        self.choose(**files)
        return self.press()

    def findings(self) -> list[tuple[str, str, str]]:
        """Each finding's status and its sentence in Vietnamese and in English, as they can be read."""
        return [tuple(one) for one in self.run(FINDINGS)]

    # -- what a user does not see -------------------------------------------------------------------

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def console(self) -> list[str]:
        """What stands in the console since it was asked for: complaints of the policy (CSP) are among it."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def requests(self) -> list[str]:
        """The addresses asked for since that was asked for."""
        entries = self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        messages = [orjson.loads(entry["message"])["message"] for entry in entries]
        return [
            one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"
        ]

    def command(self, name: str, **parameters: object) -> dict[str, Any]:
        """A command of the DevTools protocol."""
        return dict(self.driver.execute_cdp_cmd(name, parameters))

    @contextmanager
    def offline(self) -> Iterator[None]:
        """Without a network."""
        free = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.command("Network.enable")
        self.command("Network.emulateNetworkConditions", offline=True, **free)
        try:
            yield
        finally:
            self.command("Network.emulateNetworkConditions", offline=False, **free)

    @contextmanager
    def beginning_with(self, script: str) -> Iterator[None]:
        """Pages opened meanwhile run a script before their own."""
        made = self.command("Page.addScriptToEvaluateOnNewDocument", source=script)
        try:
            yield
        finally:
            self.command("Page.removeScriptToEvaluateOnNewDocument", identifier=made["identifier"])

    @contextmanager
    def width(self, pixels: int) -> Iterator[None]:
        """As narrow as a telephone."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=pixels, height=640, deviceScaleFactor=1, mobile=True
        )
        try:
            yield
        finally:
            self.command("Emulation.clearDeviceMetricsOverride")


def _no_manager(*_: object) -> None:
    raise AssertionError("selenium asked its manager for programs")


@contextmanager
def running_browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own."""
    assert CHROMIUM is not None and CHROMEDRIVER is not None
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeleniumManager, "binary_paths", _no_manager)
        patch.setenv("NO_PROXY", "localhost,127.0.0.1")
        try:
            driver = Chrome(options=options, service=Service(executable_path=CHROMEDRIVER))
        except WebDriverException as error:
            pytest.skip(f"Chromium is here and does not start: {error.msg}")
        try:
            yield Browser(driver)
        finally:
            driver.quit()
