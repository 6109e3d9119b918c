"""A headless browser to look at pages with."""

import html
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def look(address: str, folder: Path, *, width: int, is_dark: bool = False) -> dict:
    """Open a page, and return what a script of the page has written to its title as json."""
    if (browser := _find()) is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} on PATH, and no playwright")
    dark = ["--blink-settings=preferredColorScheme=0"] if is_dark else []
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/u"]
    line += [*dark, f"--window-size={width},900", "--virtual-time-budget=20000", "--dump-dom"]
    shown = subprocess.run(
        [*line, address], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    return json.loads(html.unescape(re.search("<title>(.*?)</title>", shown)[1]))


def _find() -> str | None:
    """The browser to look with: one on PATH, or that of playwright."""
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    if not importlib.util.find_spec("playwright"):
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None
