"""Take the README's picture of the report page: `python -m benchmarks.screenshot REPORT.html docs/report.png`.

Needs Debian's chromium and chromium-driver, and selenium.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

WIDTH, HEIGHT = 1120, 1000
COLOURS = 256
"""Of the saved picture: a quarter of the bytes, and no visible difference at the size of a README."""


def capture(page: Path, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Return what headless Chromium shows of `page` in a window of `width` x `height` pixels."""
    with tempfile.TemporaryDirectory() as profile:
        options = Options()
        options.binary_location = "/usr/bin/chromium"
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                         "--disable-background-networking", f"--user-data-dir={profile}"):  # fmt: skip
            options.add_argument(argument)
        browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        try:
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get(page.resolve().as_uri())
            time.sleep(2)  # until the images in view are decoded
            return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        finally:
            browser.quit()


def main(page: str, picture: str) -> None:
    """Write the picture and print its size."""
    image = capture(Path(page)).quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
    image.save(picture, optimize=True)
    print(f"{picture}: {Path(picture).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
