"""A headless Chromium over its DevTools protocol: pages, scripts, console and requests."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


def find_chromium() -> str | None:
    "The path of a Chromium, or None."
    return next(
        (
            path
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (path := shutil.which(name))
        ),
        None,
    )


class Quiet(SimpleHTTPRequestHandler):
    "A file server that keeps its log to itself."

    def log_message(self, *_) -> None:
        pass


class Server:
    "A folder on a loopback port."

    def __init__(self, folder: Path):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Browser:
    """One tab.

    `requests` and `complaints` (console errors, exceptions, failed loads) grow as pages are opened.
    """

    def __init__(self, chromium: str):
        from websocket import create_connection

        self.profile = tempfile.mkdtemp(prefix="chromium-")
        self.process = subprocess.Popen(
            [chromium, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.requests, self.complaints, self.number, self.loaded = [], [], 0, False
        port_file, end = Path(self.profile) / "DevToolsActivePort", time.time() + 60
        while not (port_file.exists() and len(port_file.read_text().split()) == 2):
            if time.time() > end or self.process.poll() is not None:
                raise RuntimeError("Chromium did not start.")
            time.sleep(0.1)
        port, path = port_file.read_text().split()
        self.socket = create_connection(
            f"ws://127.0.0.1:{port}{path}", timeout=60, suppress_origin=True
        )
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def hear(self, message: dict) -> None:
        "Note one event."
        method, said = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Network.loadingFailed" and not said.get("canceled"):
            self.complaints.append(f"load failed: {said['errorText']}")
        elif method == "Network.responseReceived" and said["response"]["status"] >= 400:
            self.complaints.append(f"{said['response']['status']} {said['response']['url']}")
        elif method == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            words = details.get("exception", {}).get("description", details["text"])
            self.complaints.append(f"exception: {words}")
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert"):
            self.complaints.append(
                "console: "
                + " ".join(str(part.get("value", part.get("description"))) for part in said["args"])
            )
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.complaints.append(f"log: {said['entry']['text']} {said['entry'].get('url', '')}")

    def call(self, method: str, **params) -> dict:
        "Send one command and return its result; events on the way are noted."
        self.number += 1
        number = self.number
        self.socket.send(
            json.dumps(
                {"id": number, "method": method, "params": params}
                | ({"sessionId": self.session} if self.session else {})
            )
        )
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") != number:
                self.hear(message)
                continue
            if "error" in message:
                raise RuntimeError(f"{method}: {message['error']['message']}")
            return message["result"]

    def ask(self, script: str):
        "The value of a JavaScript expression in the page; promises are awaited."
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 15):
        "The first true value of an expression, or its last false one when time is up."
        end = time.time() + seconds
        while not (value := self.ask(script)) and time.time() < end:
            time.sleep(0.1)
        return value

    def open(self, address: str) -> None:
        "Go to an address and wait until it is loaded."
        self.loaded = False
        if "loaderId" not in self.call("Page.navigate", url=address):
            return  # another place on the page that is open
        end = time.time() + 30
        while not self.loaded:
            if time.time() > end:
                raise RuntimeError(f"{address} did not load.")
            self.call("Runtime.evaluate", expression="0")
            time.sleep(0.02)

    def screenshot(self, path: Path, width: int, height: int, full: bool = False) -> None:
        "A PNG of the page at a window size."
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        time.sleep(0.3)
        path.write_bytes(
            base64.b64decode(
                self.call("Page.captureScreenshot", captureBeyondViewport=full)["data"]
            )
        )

    def close(self) -> None:
        "End the browser that was started here and remove its profile."
        try:
            self.socket.close()
        finally:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            shutil.rmtree(self.profile, ignore_errors=True)
