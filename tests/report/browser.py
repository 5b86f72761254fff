"""A headless Chromium by WebDriver, spoken plainly over HTTP: no package of Python's is needed."""
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request


class Missing(Exception):
    """There is no browser on this machine."""


class Browser:
    def __init__(self):
        driver = shutil.which("chromedriver")
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if driver is None or chromium is None:
            raise Missing("chromium and chromedriver are not installed")
        self.session = None
        self.profile = tempfile.mkdtemp(prefix="vae-browser-")
        self.log = open(os.path.join(self.profile, "driver.log"), "w+")
        self.driver = subprocess.Popen([driver, "--port=0"], stdout=self.log, stderr=subprocess.STDOUT)
        try:
            self.url = f"http://127.0.0.1:{self._port()}"
            self._start(chromium)
        except BaseException:
            self.close()
            raise

    def _port(self):
        end = time.monotonic() + 60
        while time.monotonic() < end and self.driver.poll() is None:
            self.log.seek(0)
            words = self.log.read().split("on port ")
            if len(words) > 1 and "\n" in words[-1]:
                port = int(words[-1].split()[0].rstrip("."))
                if port > 0:  # its first line repeats the 0 that it was asked for
                    return port
            time.sleep(0.05)
        raise Missing("chromedriver does not start")

    def _start(self, chromium):
        flags = ["--headless=new", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb",
                 "--no-first-run", f"--user-data-dir={self.profile}/profile"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium refuses to start as root otherwise
        options = {"binary": chromium, "args": flags}
        asked = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options,
                                                  "goog:loggingPrefs": {"browser": "ALL"}}}}
        try:
            self.session = self._ask("POST", "/session", asked)["sessionId"]
        except RuntimeError as why:
            raise Missing(f"Chromium does not start: {why}") from why

    def _ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method,
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from error

    def ask(self, path, body):
        return self._ask("POST", f"/session/{self.session}{path}", body)

    def open(self, file):
        self.ask("/url", {"url": "file://" + os.path.abspath(file)})

    def run(self, script, *args):
        """What the JavaScript `script` returns; its arguments are `arguments`."""
        return self.ask("/execute/sync", {"script": script, "args": list(args)})

    def devtools(self, command, **parameters):
        return self.ask("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screen(self, width, height, mobile=False):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                      deviceScaleFactor=2 if mobile else 1, mobile=mobile)

    def media(self, scheme="light", kind=""):
        self.devtools("Emulation.setEmulatedMedia", media=kind,
                      features=[{"name": "prefers-color-scheme", "value": scheme}])

    def click(self, x, y):
        """A click of the mouse at (x, y) of what is seen of the page."""
        for kind in ("mousePressed", "mouseReleased"):
            self.devtools("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left",
                          buttons=1, clickCount=1)

    def key(self, text):
        for kind in ("keyDown", "keyUp"):
            self.devtools("Input.dispatchKeyEvent", type=kind, key=text, code=text,
                          windowsVirtualKeyCode={"ArrowRight": 39, "Tab": 9, "Enter": 13}[text])

    def messages(self):
        """What the console and the network said since the last call."""
        return [entry["level"] + ": " + entry["message"] for entry in self.ask("/se/log", {"type": "browser"})]

    def picture(self, file, whole=True):
        """A screenshot; of the whole page, or of what is seen of it."""
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(file, "wb") as out:
            out.write(base64.b64decode(shot["data"]))

    def close(self):
        if self.session is not None:
            try:
                self._ask("DELETE", f"/session/{self.session}")
            except (OSError, RuntimeError):
                pass
        self.driver.terminate()
        self.driver.wait()
        self.log.close()
        shutil.rmtree(self.profile, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
