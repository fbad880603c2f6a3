"""A finished book in a real browser: what its pages show and say there, in a window of a desk and in one of a telephone.

    python tests/book/browser.py book                    every page of the book
    python tests/book/browser.py book --shots FOLDER     and pictures of some pages

Chromium is driven over its own protocol; without Chromium the tests that use this are skipped.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESK, PHONE = (1400, 1000), (390, 844)
#: Page, name of the picture.
SHOTS = {"index.html": "landing", "notebooks/06_fidelity.html": "notebook_06", "systems/U6.html": "system",
         "claims/F1.html": "claim", "search.html?q=wasserstein": "search",
         "systems/index.html": "systems", "claims/index.html": "claims"}
#: Images that are not there, after all have been asked for; those in folded parts too.
BROKEN_IMAGES = """Promise.all([...document.images].map(async image => {
  image.loading = 'eager';
  try { await image.decode(); } catch { return image.src; }
  return image.naturalWidth > 0 ? '' : image.src;
})).then(found => found.filter(Boolean))"""
#: Elements that stick out of the page to the right, and are not in a part of their own that scrolls.
OVERFLOW = """document.scrollingElement.scrollWidth > screen.width + 1
  ? [...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right > screen.width + 1).slice(0, 3)
      .map(e => e.tagName + ' ' + e.textContent.slice(0, 40)).concat('page ' + document.scrollingElement.scrollWidth) : []"""
#: How Chromium says that a page was left while it was asked.
LEFT = ("Inspected target navigated or closed", "Execution context was destroyed", "Cannot find context",
        "Promise was collected")
FOCUS = "(e => e ? [e.tagName, e.closest('nav, aside, .sidebar-container') !== null, e.textContent.trim().slice(0, 30)] : null)"


class PageGone(RuntimeError):
    """The page that was asked has been left for another one meanwhile."""


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, port: int):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
            target = next(t for t in json.load(answer) if t["type"] == "page")
        self.socket = websocket.create_connection(target["webSocketDebuggerUrl"], timeout=60, suppress_origin=True)
        self.count, self.complaints, self.requests = itertools.count(1), [], []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its answer; what the page says meanwhile is kept."""
        number = next(self.count)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self.socket.recv())).get("id") != number:
            self._hear(message)
        if "error" in message:
            reason = message["error"]["message"]
            raise (PageGone if any(words in reason for words in LEFT) else RuntimeError)(f"{method}: {reason}")
        return message["result"]

    def _hear(self, message: dict[str, Any]) -> None:
        content = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(content["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        elif message["method"] == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning"):
            self.complaints.append(str([a.get("value") for a in content["args"]]))
        elif message["method"] == "Log.entryAdded" and content["entry"]["level"] == "error":
            self.complaints.append(f"{content['entry']['text']} {content['entry'].get('url', '')}")
        elif message["method"] == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])

    def window(self, size: tuple[int, int]) -> None:
        width, height = size
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=size == PHONE)

    def open(self, address: str) -> None:
        """Go to a page, and wait until it has loaded."""
        self.complaints, self.requests = [], []
        self.send("Page.navigate", url=address)
        plain = address.partition("#")[0]
        self.until(f"location.href.startsWith({json.dumps(plain)}) && document.readyState === 'complete'")

    def until(self, condition: str, seconds: float = 20) -> bool:
        """Wait for a condition of the page; False if it does not come true.
        A page that is left while it is asked is asked again."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(PageGone):
                if self.value(condition):
                    return True
            time.sleep(0.05)
        return False

    def value(self, code: str) -> Any:
        """What JavaScript in the page gives."""
        answer = self.send("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"Tab": 9}[key])

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def opened() -> Iterator[Browser]:
    """A browser with a profile of its own, ended afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--hide-scrollbars", "--no-first-run", "--disable-dev-shm-usage",
             "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": profile})
        try:
            end, file = time.monotonic() + 60, Path(profile, "DevToolsActivePort")
            while not (file.exists() and file.read_text().strip()):
                if time.monotonic() > end or process.poll() is not None:
                    raise RuntimeError("Chromium does not start")
                time.sleep(0.1)
            browser = Browser(int(file.read_text().split()[0]))
            yield browser
            browser.socket.close()
        finally:
            process.terminate()
            process.wait(20)


def faults(browser: Browser, book: Path, pages: Iterable[str]) -> list[str]:
    """What is wrong with pages of a book as a browser shows them: errors, what is loaded from a network, images that are not
    there, and in a narrow window what sticks out."""
    found = []
    for page in pages:
        address = (book / page).as_uri()
        browser.window(DESK)
        browser.open(address)
        found += [f"{page}: {image} is not shown" for image in browser.value(BROKEN_IMAGES)]
        browser.window(PHONE)
        found += [f"{page}: sticks out at {PHONE[0]} px: {what}" for what in browser.value(OVERFLOW)]
        found += [f"{page}: {complaint}" for complaint in browser.complaints]
        found += [f"{page}: loads {url[:100]}" for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))]
    browser.window(DESK)
    return found


def search(browser: Browser, book: Path, words: str) -> list[str]:
    """The titles that the book's search finds, typed by hand into its field."""
    browser.open((book / "index.html").as_uri())
    browser.value("document.querySelector('.sidebar-search').focus()")
    browser.send("Input.insertText", text=words)
    with suppress(PageGone):
        browser.value("document.querySelector('.sidebar-search').form.submit()")
    browser.until("location.pathname.endsWith('search.html') && /finished|did not match/.test(document.body.textContent)")
    return browser.value("[...document.querySelectorAll('#search-results li > a')].map(a => a.textContent)")


def reached_by_tab(browser: Browser, book: Path, page: str, times: int = 40) -> list[list[Any]]:
    """What has the focus after each press of the tabulator: tag, whether it is part of the navigation, its words."""
    browser.open((book / page).as_uri())
    reached = []
    for _ in range(times):
        browser.press("Tab")
        reached.append(browser.value(f"{FOCUS}(document.activeElement)"))
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description="A finished book in a browser.")
    parser.add_argument("book", type=Path)
    parser.add_argument("--shots", type=Path)
    options = parser.parse_args()
    book = options.book.resolve()
    with opened() as browser:
        found = faults(browser, book, [p.relative_to(book).as_posix() for p in sorted(book.rglob("*.html"))])
        titles = search(browser, book, "wasserstein")
        found += [] if titles else ["the search finds nothing"]
        tabs = reached_by_tab(browser, book, "systems/U6.html")
        found += [] if any(inside for _, inside, _ in filter(None, tabs)) else ["the navigation cannot be reached by keyboard"]
        for page, name in (SHOTS.items() if options.shots else ()):
            for size, window in (("desk", DESK), ("phone", PHONE)):
                browser.window(window)
                path, _, query = page.partition("?")
                browser.open((book / path).as_uri() + (f"?{query}" if query else ""))
                time.sleep(1)
                browser.picture(options.shots / f"{name}_{size}.png")
    print("\n".join(found) or f"nothing wrong; the search found {len(titles)} places: {titles[:5]}")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
