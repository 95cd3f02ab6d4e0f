"""Draw the pictures of the README again.

    python .ci/pictures.py

The Python code of the README draws `filters.png`. `report.png` is a screenshot of the
report of `keras-sae compare --report`. The screenshot needs Chromium, ChromeDriver and
Selenium. `tests/pages.py` draws the pictures of other pages.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
FLAGS = "headless=new no-sandbox disable-gpu disable-dev-shm-usage hide-scrollbars"
MODEL, WIDTH, HEIGHT = "L1", 1180, 830


def draw_filters(folder: Path) -> None:
    """Run the README's Python code, and copy the picture that it draws."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    shutil.copy(folder / "filters.png", PICTURES)


def draw_report(folder: Path) -> None:
    """Train the models of `compare`, and take a screenshot of one model's units."""
    command = [sys.executable, "-m", "keras_sae.cli", "compare", "--report"]
    subprocess.run([*command, "--output", str(folder / "run")], check=True)
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in FLAGS.split():
        options.add_argument(f"--{flag}")
    service = Service(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as driver:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1}
        size["mobile"] = False
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get((folder / "run" / "report.html").as_uri())
        while not driver.execute_script(
            "return document.documentElement.dataset.ready"
        ):
            time.sleep(0.1)
        driver.execute_script(
            "const names = page.models.map((model) => model.name);"
            "const box = byId('model'); box.value = names.indexOf(arguments[0]);"
            "box.dispatchEvent(new Event('change'));"
            "byId('units').scrollIntoView();",
            MODEL,
        )
        time.sleep(1)  # until the charts are drawn
        driver.save_screenshot(str(PICTURES / "report.png"))


def main() -> None:
    """Draw both pictures."""
    with tempfile.TemporaryDirectory() as folder:
        draw_filters(Path(folder))
        draw_report(Path(folder))


if __name__ == "__main__":
    main()
