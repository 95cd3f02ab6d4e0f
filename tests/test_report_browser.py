"""The page in a browser: it opens without an error, sorts, filters and selects."""

import shutil
import time

import keras
import numpy as np
import pandas as pd
import pytest

from keras_sae import models, report

_BROWSER, _DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (_BROWSER and _DRIVER),
    reason="no `chromium` with its `chromedriver` on the PATH: no browser to test in",
)

RNG = np.random.default_rng(0)
X = RNG.random((60, 4, 4, 1), dtype="float32")
Y = np.arange(60) % 3
# More units than any screen holds, one of which never fires.
UNITS = 300


def _named():
    made = {name: models.shallow((4, 4, 1), UNITS, "l1") for name in ("one", "two")}
    for model in made.values():
        model.compile("adam")
        model.fit(X, epochs=2, batch_size=20, verbose=0)
        bias = keras.ops.convert_to_numpy(model.sparse_layers[0].bias).copy()
        bias[7] = -100.0
        model.sparse_layers[0].bias.assign(bias)
    return made


@pytest.fixture(scope="module")
def trained():
    return _named()


@pytest.fixture(scope="module")
def path(trained, tmp_path_factory):
    table = pd.DataFrame(
        {
            "model": ["one", "two", "PCA"],
            "reconstruction": [0.2, 0.1, 0.3],
            "l0": [9.0, np.nan, 10.0],
        }
    )
    file = tmp_path_factory.mktemp("browser") / "page.html"
    return report.write_report(
        trained, (X, Y), file, table=table, title="A <b>page</b>"
    )


@pytest.fixture(scope="module")
def driver():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _BROWSER
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(driver, path):
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    return _opened(driver, path)


def _opened(driver, path):
    driver.get(path.as_uri())
    _until(
        lambda: driver.execute_script("return document.documentElement.dataset.ready")
    )
    return driver


def _until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _text(page, selector):
    return page.execute_script(
        "return document.querySelector(arguments[0]).textContent", selector
    )


def _choose(page, box, value):
    page.execute_script(
        "const box = document.getElementById(arguments[0]);"
        "box.value = arguments[1]; box.dispatchEvent(new Event('change'));",
        box,
        str(value),
    )


def _units(page):
    return page.execute_script(
        "return [...document.querySelectorAll('#grid .option')]"
        ".map((option) => Number(option.dataset.index))"
    )


def _chosen(page):
    return int(_text(page, "#unit-name").removeprefix("Unit "))


def _problems(page):
    return [e for e in page.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]


def test_it_opens_without_an_error(page):
    assert _problems(page) == []
    assert page.title == "A <b>page</b>"
    assert len(_units(page)) == UNITS
    canvases = page.execute_script(
        "return document.querySelectorAll('.chart:not([hidden]) > *').length"
    )
    assert canvases >= 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_nothing_sticks_out_in_either_scheme(driver, path, scheme, width):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page = _opened(driver, path)
    assert _problems(page) == []
    wide = page.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    ink, ground = page.execute_script(
        "const s = getComputedStyle(document.body);"
        "return [s.color, s.backgroundColor].map((c) => c.match(/\\d+/g).map(Number))"
    )
    assert (sum(ink) > sum(ground)) == (scheme == "dark")


def test_units_are_sorted(page, trained):
    codes = trained["one"].encode(X)
    fires = (codes != 0).mean(axis=0)
    for order, figure in {
        "fires": -fires,
        "rare": fires,
        "mean": -codes.mean(axis=0),
        "peak": -codes.max(axis=0),
        "number": np.arange(UNITS),
    }.items():
        _choose(page, "sort", order)
        shown = figure[_units(page)]
        assert len(shown) == UNITS
        assert (np.diff(shown) >= -1e-5 * np.abs(shown[:-1])).all(), order
        assert _chosen(page) == _units(page)[0]


def test_units_are_filtered(page, trained):
    codes = trained["one"].encode(X)
    fires = (codes != 0).any(axis=0)
    _choose(page, "show", "silent")
    assert set(_units(page)) == set(np.flatnonzero(~fires)) >= {7}
    _choose(page, "show", "alive")
    assert set(_units(page)) == set(np.flatnonzero(fires))
    means = np.stack([codes[k == Y].mean(axis=0) for k in range(3)])
    _choose(page, "class", 2)
    assert set(_units(page)) == set(np.flatnonzero(fires & (means.argmax(axis=0) == 2)))
    assert _text(page, "#count").startswith(f"{len(_units(page))} of {UNITS}")


def test_no_unit_left_is_said(page):
    _choose(page, "show", "silent")
    _choose(page, "class", 1)
    assert _units(page) == []
    assert "No unit" in _text(page, "#grid")


def test_units_by_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    order = _units(page)
    page.find_element("css selector", "#grid .option[tabindex='0']").send_keys(
        Keys.ARROW_RIGHT
    )
    assert _chosen(page) == order[1]
    row = page.execute_script("return perRow([...grid.children])")
    for key, place in (
        (Keys.ARROW_DOWN, 1 + row),
        (Keys.ARROW_LEFT, row),
        (Keys.ARROW_UP, 0),
        (Keys.END, UNITS - 1),
        (Keys.ARROW_RIGHT, UNITS - 1),
        (Keys.HOME, 0),
    ):
        page.switch_to.active_element.send_keys(key)
        assert _chosen(page) == order[place], key
    assert (
        page.execute_script(
            "return document.querySelectorAll('#grid [tabindex=\"0\"]').length"
        )
        == 1
    )


def test_every_control_is_reached_by_tab(page):
    from selenium.webdriver.common.keys import Keys

    seen = set()
    page.execute_script("document.body.focus()")
    for _ in range(90):
        page.switch_to.active_element.send_keys(Keys.TAB)
        seen.add(
            page.execute_script(
                "const e = document.activeElement;return e.id || e.closest('[id]')?.id"
            )
        )
    assert {"model", "sort", "show", "class", "goto", "grid", "unit-top"} <= seen
    assert {"worst", "best", "strip", "sample-units", "table"} <= seen


def test_the_chosen_unit_is_described(page, trained):
    codes = trained["one"].encode(X)
    unit = int(codes.mean(axis=0).argmax())
    _choose(page, "goto", unit)
    assert _chosen(page) == unit
    share = 100 * (codes[:, unit] != 0).mean()
    assert f"{share:.1f}%" in _text(page, "#unit-facts")
    first = page.execute_script(
        "return document.querySelector('#unit-top button').title"
    )
    assert first == f"sample {codes[:, unit].argmax()}"
    drawn = page.execute_script("return source('histogram', 'histogram').data.count")
    assert sum(drawn) == (codes[:, unit] != 0).sum()


def test_a_sample_leads_to_its_units_and_back(page, trained):
    codes = trained["one"].encode(X)
    page.execute_script("document.querySelector('#worst button').click()")
    sample = int(_text(page, "#sample-name").removeprefix("Sample "))
    errors = ((X - trained["one"].predict(X, verbose=0)) ** 2).mean(axis=(1, 2, 3))
    assert sample == errors.argmax()
    bars = page.execute_script(
        "return Array.from(source('activations', 'activations').data.activation)"
    )
    np.testing.assert_allclose(bars, codes[sample], atol=1e-6)
    page.execute_script("document.querySelector('#sample-units button').click()")
    assert _chosen(page) == codes[sample].argmax()


def test_a_tapped_bar_chooses_its_unit(page):
    page.execute_script(
        "source('activations', 'activations').selected.indices = [arguments[0]]", 42
    )
    assert _chosen(page) == 42


def test_another_model_is_shown(page, trained):
    _choose(page, "model", 1)
    mean = trained["two"].encode(X).mean(axis=0)
    _choose(page, "sort", "mean")
    assert mean[_chosen(page)] == pytest.approx(mean.max(), rel=1e-4)
    assert _text(page, "#table tr.current th") == "two"


def test_the_table_is_sorted_with_missing_values_last(page):
    def column():
        return page.execute_script(
            "return [...document.querySelectorAll('#table tbody th')]"
            ".map((cell) => cell.textContent)"
        )

    heading = "document.querySelectorAll('#table thead button')[arguments[0]].click()"
    page.execute_script(heading, 1)
    assert column() == ["two", "one", "PCA"]
    page.execute_script(heading, 2)
    assert column() == ["one", "PCA", "two"]
    page.execute_script(heading, 2)
    assert column() == ["PCA", "one", "two"]
