"""A real browser without a window, driven through Chromium's DevTools protocol over two pipes. Needs no package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")


def find_browser() -> str | None:
    """The command of a Chromium or Chrome on this machine."""
    found = next((path for path in map(shutil.which, _NAMES) if path), None)
    return found or (str(_MAC) if _MAC.is_file() else None)


class BrowserError(Exception):
    """The browser did not do what it was told."""


class Browser:
    """A browser with one page, 1280 by 900 pixels.

    Args:
        command: of the browser.
        profile: folder of what it keeps; the same folder is the same user.
    """

    def __init__(self, command: str, profile: Path) -> None:
        theirs, ours = os.pipe(), os.pipe()
        # Chromium reads from descriptor 3 and writes to 4, which may be in use here.
        high = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs[0], ours[1])]

        def place() -> None:
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        options = (
            "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions "
            "--disable-background-networking --disable-component-update --disable-sync --window-size=1280,900 "
            "--hide-scrollbars --remote-debugging-pipe"
        )
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [command, *options.split(), f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        for one in (*high, theirs[0], ours[1]):
            os.close(one)
        self._to, self._from = theirs[1], ours[0]
        self._buffer, self._number, self._session, self._context = b"", 0, None, None
        #: Addresses that the page asked for, and what its console and the browser complained of.
        self.requests: list[str] = []
        self.complaints: list[str] = []
        try:
            self._attach()
        except (BrowserError, OSError) as error:
            self.close()
            raise BrowserError(f"it does not start: {error}") from error

    def _attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        self._look_at(next(one["targetId"] for one in targets if one["type"] == "page"))

    def _look_at(self, page: str) -> None:
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for room in ("Page", "Runtime", "Log", "Network", "Performance"):
            self.call(f"{room}.enable")

    def close(self) -> None:
        """Ends the browser, and waits until what it keeps is on the disk. A second time it does nothing."""
        if self._process.returncode is not None:
            return
        try:
            self.call("Browser.close")
            self._process.wait(20)
        except (BrowserError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._errors.close()

    def forget(self) -> None:
        """Goes on with an empty page of another user, for whom nothing is kept.

        A script that clears the store would not do: what it says reaches the next page late on a busy machine, and then
        clears what was kept since.
        """
        self._session = None
        self._context = self.call("Target.createBrowserContext")["browserContextId"]
        page = self.call("Target.createTarget", url="about:blank", browserContextId=self._context)["targetId"]
        self._look_at(page)

    def open(self, address: str) -> None:
        """Opens an address, and waits until the page is there."""
        self._loaded = False
        answer = self.call("Page.navigate", url=address)
        if answer.get("errorText"):
            raise BrowserError(f"{address}: {answer['errorText']}")
        self._until(lambda: self._loaded, "the page did not load")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(answer["exceptionDetails"].get("exception", {}).get("description", script))
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 20.0) -> None:
        """Waits until an expression is true in the page."""
        self._until(lambda: self.run(script), f"never true: {script}", seconds)

    def click(self, selector: str) -> None:
        """Moves the mouse to the middle of the first element that the selector finds, and clicks."""
        place = self.run(
            f"(async () => {{ const one = document.querySelector({json.dumps(selector)});"
            "if (!one) return null; one.scrollIntoView({block: 'center'});"
            # What comes near is laid out in the next frames, and moves the rest.
            "for (let last = null; ;) { await new Promise(requestAnimationFrame);"
            "const box = one.getBoundingClientRect(), place = [box.x + box.width / 2, box.y + box.height / 2];"
            "if (last && last[0] === place[0] && last[1] === place[1]) return place; last = place; } })()"
        )
        if place is None:
            raise BrowserError(f"nothing is {selector}")
        mouse = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **mouse)

    def press(self, key: str) -> None:
        """Presses a key: a character, or a name such as "Escape"."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def write(self, text: str) -> None:
        """Writes into the field that has the focus."""
        self.call("Input.insertText", text=text)

    def look(self, path: Path, dark: bool = False, whole: bool = False) -> None:
        """Takes a picture of the page, as PNG."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))

    def save_to(self, folder: Path) -> None:
        """Says where files go that a page saves."""
        user = {"browserContextId": self._context} if self._context else {}
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), **user)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol, and returns what it answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None and not method.startswith("Browser."):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            answer = self._read(1.0, self._number)
            if answer is not None:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return answer["result"]
        raise BrowserError(f"{method}: no answer")

    def _until(self, true: Any, why: str, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise BrowserError(why)
            self._read(0.05)

    def _read(self, seconds: float, number: int | None = None) -> dict[str, Any] | None:
        """Reads what comes within some seconds; returns the answer to call `number`, if it is there."""
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], seconds)[0]:
                return None
            piece = os.read(self._from, 1 << 20)
            if not piece:
                self._errors.seek(0)
                raise BrowserError(f"the browser ended: {self._errors.read()[-2000:].decode(errors='replace')}")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message if number is not None and message.get("id") == number else None

    def _note(self, event: str | None, values: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif event == "Log.entryAdded":
            self.complaints.append(values["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(values["exceptionDetails"].get("exception", {}).get("description", "an exception"))
