"""A headless Chromium that tests drive through its DevTools protocol, as far as they need it."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_S = 60
# TensorBoard's pages are nested shadow roots: everything in them, as one list of elements.
ELEMENTS = """
const elements = (root = document) => [...root.querySelectorAll("*")].flatMap(
  one => one.shadowRoot ? [one, ...elements(one.shadowRoot)] : [one]);
const texts = () => elements().filter(one => !["SCRIPT", "STYLE", "TEMPLATE"].includes(one.tagName))
  .flatMap(one => [...one.childNodes]).filter(one => one.nodeType == 3).map(one => one.data.trim()).filter(Boolean);
"""


class Page:
    """One page of a browser of its own, which ends with the `async with` block.

    Args:
        folder: For the browser's files.
    """

    def __init__(self, folder: Path):
        self._folder, self._count, self._session = folder, 0, None

    async def __aenter__(self):
        from tornado.websocket import websocket_connect

        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
        own = (f"--user-data-dir={self._folder}", "--remote-debugging-port=0")
        self._process = subprocess.Popen(
            [CHROMIUM, *flags, *own, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        lines = iter(self._process.stderr.readline, "")
        address = next(line.split()[-1] for line in lines if line.startswith("DevTools listening on"))
        self._socket = await websocket_connect(address, max_message_size=2**28)
        target = (await self._call("Target.createTarget", url="about:blank"))["targetId"]
        self._session = (await self._call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        size = {"width": 1500, "height": 1100, "deviceScaleFactor": 1, "mobile": False}
        await self._call("Emulation.setDeviceMetricsOverride", **size)
        return self

    async def __aexit__(self, *_):
        self._socket.close()
        self._process.kill()
        self._process.communicate()

    async def open(self, address):
        """Go to an address."""
        await self._call("Page.navigate", url=address)

    async def until(self, expression):
        """The first true value of a JavaScript expression; it may use `elements()` and `texts()`."""
        program = (
            f"{{{ELEMENTS} new Promise(done => {{ const timer = setInterval(() => {{ const value = {expression}; "
            "if (value) { clearInterval(timer); done(value); } }, 100); }) }"
        )
        async with asyncio.timeout(PATIENCE_S):
            answer = await self._call("Runtime.evaluate", expression=program, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    async def run(self, statement):
        """Run a JavaScript statement."""
        await self._call("Runtime.evaluate", expression=statement)

    async def screenshot(self):
        """The page as PNG."""
        import base64

        return base64.b64decode((await self._call("Page.captureScreenshot", format="png"))["data"])

    async def _call(self, method, **parameters):
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._socket.write_message(json.dumps(message))
        while True:
            answer = json.loads(await self._socket.read_message())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
