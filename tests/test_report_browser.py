"""The report in a browser: it opens without errors, and its controls work."""

import shutil
import time

import keras
import numpy as np
import pandas as pd
import pytest

from keras_sae import models, report

_BROWSER, _DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (_BROWSER and _DRIVER), reason="needs `chromium` and `chromedriver`"
    ),
]

RNG = np.random.default_rng(0)
X = RNG.random((60, 4, 4, 1), dtype="float32")
Y = np.arange(60) % 3
# More units than fit on a screen. One of them is dead.
UNITS = 300


@pytest.fixture(scope="module")
def trained():
    named = {name: models.shallow((4, 4, 1), UNITS, "l1") for name in ("one", "two")}
    for model in named.values():
        model.compile("adam")
        model.fit(X, epochs=2, batch_size=20, verbose=0)
        bias = keras.ops.convert_to_numpy(model.sparse_layers[0].bias).copy()
        bias[7] = -100.0
        model.sparse_layers[0].bias.assign(bias)
    return named


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
    # Root needs `no-sandbox`. The page needs no network, and neither does the browser.
    flags = "headless=new no-sandbox disable-gpu disable-dev-shm-usage no-first-run "
    flags += "disable-background-networking disable-component-update disable-sync"
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(driver, path):
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    return open_page(driver, path)


def open_page(driver, path):
    driver.get(path.as_uri())
    wait_until(
        lambda: driver.execute_script("return document.documentElement.dataset.ready")
    )
    return driver


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.05)


def text_of(page, selector):
    return page.execute_script(
        "return document.querySelector(arguments[0]).textContent", selector
    )


def choose(page, box, value):
    page.execute_script(
        "const box = document.getElementById(arguments[0]);"
        "box.value = arguments[1]; box.dispatchEvent(new Event('change'));",
        box,
        str(value),
    )


def listed_units(page):
    return page.execute_script(
        "return [...document.querySelectorAll('#grid .option')]"
        ".map((option) => Number(option.dataset.index))"
    )


def selected_unit(page):
    return int(text_of(page, "#unit-name").removeprefix("Unit "))


def browser_messages(page):
    return [e for e in page.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]


def test_page_opens_without_errors(page):
    assert browser_messages(page) == []
    assert page.title == "A <b>page</b>"
    assert len(listed_units(page)) == UNITS
    canvases = page.execute_script(
        "return document.querySelectorAll('.chart:not([hidden]) > *').length"
    )
    assert canvases >= 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_page_fits_the_screen_in_light_and_dark_mode(driver, path, scheme, width):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page = open_page(driver, path)
    assert browser_messages(page) == []
    wide = page.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    ink, ground = page.execute_script(
        "const s = getComputedStyle(document.body);"
        "return [s.color, s.backgroundColor].map((c) => c.match(/\\d+/g).map(Number))"
    )
    assert (sum(ink) > sum(ground)) == (scheme == "dark")


def test_units_can_be_sorted(page, trained):
    codes = trained["one"].encode(X)
    rate = (codes != 0).mean(axis=0)
    for order, statistic in {
        "rate": -rate,
        "rare": rate,
        "mean": -codes.mean(axis=0),
        "peak": -codes.max(axis=0),
        "number": np.arange(UNITS),
    }.items():
        choose(page, "sort", order)
        shown = statistic[listed_units(page)]
        assert len(shown) == UNITS
        assert (np.diff(shown) >= -1e-5 * np.abs(shown[:-1])).all(), order
        assert selected_unit(page) == listed_units(page)[0]


def test_units_can_be_filtered(page, trained):
    codes = trained["one"].encode(X)
    fires = (codes != 0).any(axis=0)
    choose(page, "show", "dead")
    assert set(listed_units(page)) == set(np.flatnonzero(~fires)) >= {7}
    choose(page, "show", "active")
    assert set(listed_units(page)) == set(np.flatnonzero(fires))
    means = np.stack([codes[k == Y].mean(axis=0) for k in range(3)])
    choose(page, "class", 2)
    assert set(listed_units(page)) == set(
        np.flatnonzero(fires & (means.argmax(axis=0) == 2))
    )
    assert text_of(page, "#count").startswith(f"{len(listed_units(page))} of {UNITS}")


def test_message_is_shown_when_no_unit_matches(page):
    choose(page, "show", "dead")
    choose(page, "class", 1)
    assert listed_units(page) == []
    assert "No unit matches" in text_of(page, "#grid")


def test_arrow_keys_move_between_units(page):
    from selenium.webdriver.common.keys import Keys

    order = listed_units(page)
    page.find_element("css selector", "#grid .option[tabindex='0']").send_keys(
        Keys.ARROW_RIGHT
    )
    assert selected_unit(page) == order[1]
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
        assert selected_unit(page) == order[place], key
    assert (
        page.execute_script(
            "return document.querySelectorAll('#grid [tabindex=\"0\"]').length"
        )
        == 1
    )


def test_tab_key_reaches_every_control(page):
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


def test_selected_unit_is_described(page, trained):
    codes = trained["one"].encode(X)
    unit = int(codes.mean(axis=0).argmax())
    choose(page, "goto", unit)
    assert selected_unit(page) == unit
    share = 100 * (codes[:, unit] != 0).mean()
    assert f"{share:.1f}%" in text_of(page, "#unit-facts")
    first = page.execute_script(
        "return document.querySelector('#unit-top button').title"
    )
    assert first == f"sample {codes[:, unit].argmax()}"
    drawn = page.execute_script("return source('histogram', 'histogram').data.count")
    assert sum(drawn) == (codes[:, unit] != 0).sum()


def test_clicks_lead_to_samples_and_units(page, trained):
    codes = trained["one"].encode(X)
    page.execute_script("document.querySelector('#worst button').click()")
    sample = int(text_of(page, "#sample-name").removeprefix("Sample "))
    errors = ((X - trained["one"].predict(X, verbose=0)) ** 2).mean(axis=(1, 2, 3))
    assert sample == errors.argmax()
    bars = page.execute_script(
        "return Array.from(source('activations', 'activations').data.activation)"
    )
    np.testing.assert_allclose(bars, codes[sample], atol=1e-6)
    page.execute_script("document.querySelector('#sample-units button').click()")
    assert selected_unit(page) == codes[sample].argmax()


def test_tap_on_a_bar_selects_its_unit(page):
    page.execute_script(
        "source('activations', 'activations').selected.indices = [arguments[0]]", 42
    )
    assert selected_unit(page) == 42


def test_model_can_be_changed(page, trained):
    choose(page, "model", 1)
    mean = trained["two"].encode(X).mean(axis=0)
    choose(page, "sort", "mean")
    assert mean[selected_unit(page)] == pytest.approx(mean.max(), rel=1e-4)
    assert text_of(page, "#table tr.current th") == "two"


def test_table_can_be_sorted_with_missing_values_last(page):
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
