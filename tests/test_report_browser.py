"""The report in a real browser: headless Chromium from the system's packages (chromium, chromium-driver)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_toy import Toy, toy_fixture  # noqa: F401
from report_samples import EVIL, fill

from harness.report.build import build
from harness.report.gather import Section, gather

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium: apt-get install chromium chromium-driver"),
]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
NAME = "<script>window.hacked = 3</script>"
COPIES = 200
SCALES = """
const scale = (svg) => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
const seen = (plots) => plots.filter((plot) => plot.checkVisibility()).map((plot) => scale(plot.querySelector("svg")));
return [...document.querySelectorAll("figure")].map((figure) => {
  const plots = [...figure.querySelectorAll(".plot")];
  return [plots.length, ...seen(plots)];
});
"""
"""Of every figure: how many drawings it has, and the scale of each that can be seen."""
WIDE, PHONE = 1280, 375


@pytest.fixture(scope="module", name="browser")
def browser_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def renamed(section: Section) -> Section:
    """The first row's method as somebody might name theirs, to do harm."""
    tables = []
    for table in section.tables:
        first, *others = table.rows
        evil = replace(first, method=NAME, values={**first.values, "method": f"{NAME}(by=1)"})
        tables.append(replace(table, rows=[evil, *others]))
    return replace(section, tables=tables)


def multiplied(section: Section) -> Section:
    """Two problems of 1,000 rows and about 5,000 records."""
    size = len(section.scope.points)
    taken = {
        (problem, row + size * copy): {
            seed: replace(one, hash=f"{copy:08x}{one.hash[8:]}") for seed, one in records.items()
        }
        for (problem, row), records in section.taken.items()
        for copy in range(COPIES)
    }
    scope = replace(section.scope, points=list(section.scope.points) * COPIES)
    tables = [replace(table, rows=list(table.rows) * COPIES) for table in section.tables]
    return replace(section, scope=scope, tables=tables, taken=taken, older={})


_pages: dict[str, Path] = {}


@pytest.fixture(name="pages")
def pages_fixture(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sample's report and one of 5,000 records, made once."""
    if not _pages:
        folder = tmp_path_factory.mktemp("pages")
        suite, ledger = fill(toy)
        with closing(ledger):
            section = renamed(gather(suite, ledger))
            for name, one in (("small", section), ("large", multiplied(section))):
                _pages[name] = folder / f"{name}.html"
                _pages[name].write_text(build([one], ledger).html, encoding="utf-8")
    return _pages


@pytest.fixture(name="shown")
def shown_fixture(browser: Any, pages: dict[str, Path]) -> Any:
    """The sample's report, opened on a wide screen in light colours."""
    open_page(browser, pages["small"])
    return browser


def open_page(browser: Any, path: Path, *, width: int = WIDE, theme: str = "light", fragment: str = "") -> None:
    features = [{"name": "prefers-color-scheme", "value": theme}]
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get("about:blank")
    browser.get(path.as_uri() + fragment)


def all_of(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def one(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def first_column(browser: Any) -> list[str]:
    return [cell.text for cell in all_of(browser, "[data-table='0.0'] tbody th")]


def numbers(browser: Any, column: int) -> list[float]:
    cells = all_of(browser, f"[data-table='0.0'] tbody td:nth-child({column}) .v")
    return [float(cell.text.replace("\N{MINUS SIGN}", "-")) for cell in cells]


def press(browser: Any, keys: str) -> None:
    browser.switch_to.active_element.send_keys(keys)


def test_it_loads_without_a_complaint(browser: Any, pages: dict[str, Path]) -> None:
    for theme in ("light", "dark"):
        for width in (WIDE, PHONE):
            open_page(browser, pages["small"], width=width, theme=theme)
            assert browser.get_log("browser") == []
            assert browser.title.startswith("toys: report of nn-harness")
            # Nothing is wider than the screen: only tables scroll sideways, in a box of their own.
            page = "document.documentElement"
            assert browser.execute_script(f"return {page}.scrollWidth <= {page}.clientWidth")


def test_text_is_inert(shown: Any) -> None:
    assert NAME in first_column(shown)[0]
    assert shown.execute_script("return window.hacked") is None
    for row in shown.execute_script("return [...document.querySelectorAll('[data-row]')].map(e => e.dataset.row)"):
        shown.execute_script(f"location.hash = 'row={row}'")
    failed = shown.execute_script("return JSON.parse(document.getElementById('data').textContent).records")
    for record in failed:
        shown.execute_script(f"location.hash = 'record={record[4]}'")
    shown.execute_async_script("setTimeout(arguments[0], 200)")
    assert shown.execute_script("return window.hacked") is None
    assert shown.execute_script("return document.images.length") == 0
    assert EVIL in one(shown, "h2").text


def test_a_heading_sorts_both_ways(shown: Any) -> None:
    before = numbers(shown, 3)
    head = all_of(shown, "[data-table='0.0'] thead th")[2]
    head.find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert numbers(shown, 3) == sorted(before)
    head.find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert numbers(shown, 3) == sorted(before, reverse=True)


def test_filters_keep_what_fits(shown: Any) -> None:
    everything = first_column(shown)
    field = one(shown, "[data-table='0.0'] input")
    field.send_keys("twice=True")
    assert first_column(shown) == [name for name in everything if "twice=True" in name]
    assert one(shown, "[data-table='0.0'] .count").text == f"{len(first_column(shown))} of {len(everything)} rows"
    field.clear()
    field.send_keys("x")
    field.send_keys("\ue003")
    assert first_column(shown) == everything
    one(shown, "[data-table='0.0'] select").send_keys("noise")
    assert first_column(shown) == ["noise"]


def test_a_number_leads_to_its_records_and_back(shown: Any) -> None:
    all_of(shown, "[data-table='0.0'] tbody tr")[3].find_element("css selector", "td .cell").click()
    card = one(shown, "#detail")
    assert card.is_displayed()
    assert "harness run" in card.text
    assert "Its 3 records" in card.text
    card.find_element("css selector", "tbody a").click()
    assert "seed 0" in one(shown, "#detail h2").text
    for part in ("To make it again", "harness show ", "PARAMETERS AND PROBLEM", "ENVIRONMENT", "COST", "v:1"):
        assert part.lower() in one(shown, "#detail").text.lower()
    shown.back()
    assert "Its 3 records" in one(shown, "#detail").text
    press(shown, "\ue00c")  # escape
    assert not one(shown, "#detail").is_displayed()
    assert "#row" not in shown.current_url


def test_an_address_opens_its_record(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["small"], fragment="#row=0.1.4")
    assert one(browser, "#detail").is_displayed()
    assert "noise" in one(browser, "#detail h2").text
    open_page(browser, pages["small"], fragment="#row=9.9.9")
    assert not one(browser, "#detail").is_displayed()


def test_everything_is_reached_by_keyboard(shown: Any) -> None:
    shown.execute_script("document.querySelector('[data-table=\"0.0\"] tbody .cell').focus()")
    press(shown, "\ue014")  # right
    press(shown, "\ue015")  # down
    assert shown.execute_script("return document.activeElement.closest('td').cellIndex") == 1
    assert shown.execute_script("return document.activeElement.closest('tr').rowIndex") == 2
    press(shown, "\n")
    assert one(shown, "#detail").is_displayed()
    press(shown, "\ue00c")
    # A mark of a plot is a button, too.
    shown.execute_script(
        "[...document.querySelectorAll('[data-row][tabindex]')].find(e => e.checkVisibility()).focus()"
    )
    press(shown, "\n")
    assert one(shown, "#detail").is_displayed()


def test_colours_follow_the_system_and_the_button(browser: Any, pages: dict[str, Path]) -> None:
    def background() -> str:
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    open_page(browser, pages["small"], theme="light")
    light = background()
    open_page(browser, pages["small"], theme="dark")
    dark = background()
    assert light != dark
    button = one(browser, "#theme")
    button.click()
    assert (button.text, background()) == ("Light", light)
    button.click()
    assert (button.text, background()) == ("Dark", dark)
    button.click()
    assert (button.text, background()) == ("Auto", dark)


def test_plots_fit_the_screen(browser: Any, pages: dict[str, Path]) -> None:
    for width in (WIDE, 800, PHONE):
        open_page(browser, pages["small"], width=width)
        shown = browser.execute_script(SCALES)
        for drawn, *scales in shown:
            # One of the drawings, at least nine tenths of the size its text was meant for.
            assert len(scales) == min(drawn, 1)
            assert all(0.9 <= scale <= 1.01 for scale in scales), (width, scales)


def test_five_thousand_records_take_no_room_on_the_page(browser: Any, pages: dict[str, Path]) -> None:
    # The processor time of the page's own thread: what it takes to open on a machine that does nothing else.
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    open_page(browser, pages["large"])
    spent = {one["name"]: one["value"] for one in browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
    browser.execute_cdp_cmd("Performance.disable", {})
    print(f"opened in {spent['TaskDuration']:.2f} s of processor time, script {spent['ScriptDuration']:.2f} s")
    assert spent["TaskDuration"] < 2.0
    records = browser.execute_script("return JSON.parse(document.getElementById('data').textContent).records.length")
    assert records > 5000
    # Tables show a page of rows each: what is not shown is not there.
    assert browser.execute_script("return document.querySelectorAll('.table tbody tr').length") == 3 * 50
    assert browser.execute_script("return document.querySelectorAll(':not(svg, svg *)').length") < 5_000
    assert browser.execute_script("return document.querySelectorAll('svg *').length") < 20_000
    one(browser, "[data-table='records'] input").send_keys("noise seed 2")
    shown = all_of(browser, "[data-table='records'] tbody tr")
    assert 0 < len(shown) <= 50
    assert all("noise" in row.text for row in shown)
