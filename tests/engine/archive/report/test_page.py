"""The report page: whole, valid, safe to open, and working in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from engine.archive.report.gallery import Comparison, comparison
from engine.archive.report.page import (
    Links,
    Remark,
    ReportData,
    RunFigures,
    duration,
    flat,
    nice_scale,
    plot,
    shown,
    three_digits,
    write_report,
)

HOSTILE = [
    "</script><script>document.title='owned'</script>.jpg",
    "<img src=x onerror=\"document.title='owned'\">.jpg",
    "\"'><svg onload=alert(1)>&amp;{{ 7*7 }}.jpg",
    "photo\u202egpj.exe",
    "line\nbreak\x00\x07 and \udcff.jpg",
    "<!--<script>.jpg",
]
SUMMARY = RunFigures(
    source="/photos",
    destination="/photos winter",
    finished="24 November 2026, 06:12",
    translated=5,
    in_this_run=3,
    failed=1,
    elapsed_s=92.4,
    megapixels=78.9,
)


def photo(name: str, width: int = 120, height: int = 80) -> Comparison:
    """Return a comparison of a red image with a blue one."""
    before, after = (np.full((height, width, 3), colour, np.uint8) for colour in ((200, 30, 30), (30, 30, 200)))
    return comparison(name, before, after, 120)


def data(**changes: Any) -> ReportData:
    whole = ReportData(
        title="3 photos, summer to winter",
        summary=SUMMARY,
        comparisons=[photo("a/one.jpg"), photo("a/two.jpg", 60, 90), photo(HOSTILE[0])],
        failures=[Remark(path="broken.jpg", stage="decode", text="The file ends early.")],
        remarks=[Remark(path="odd.jpg", text="EXIF dropped: no TIFF header")],
        rate=[(float(second), 10 * second) for second in range(20)],
        settings={"size": 256, "keep_profile": False},
        card={"name": "summer2winter", "scores": {"fid": 74.2}},
        left_out={".mov": 3, "@eaDir/": 1},
        links={"a/one.jpg": Links(result="a/one.jpg", original="file:///photos/a/one.jpg")},
    )
    return replace(whole, **changes)


def page(tmp_path: Path, report: ReportData | None = None) -> str:
    write_report(tmp_path / "report.html", report or data())
    return (tmp_path / "report.html").read_text("utf-8")


def words(html: str) -> str:
    """Return the text of the page, without its scripts."""
    tree = html5lib.HTMLParser(strict=True).parse(html)
    space = "{http://www.w3.org/1999/xhtml}"
    hidden = [element for element in tree.iter() if element.tag in (space + "script", space + "style")]
    for element in hidden:
        element.text = ""
    return " ".join("".join(tree.itertext()).split())


# The file.


@pytest.mark.parametrize(
    "report",
    [
        data(),
        data(failures=[], remarks=[], rate=[], comparisons=[], settings={}, card={}),
        data(failures=[Remark(path=name, stage=name, text=name) for name in HOSTILE * 5]),
        data(
            title=HOSTILE[0],
            summary=replace(SUMMARY, source=HOSTILE[1], destination=HOSTILE[2]),
            comparisons=[photo(name) for name in HOSTILE],
            settings={HOSTILE[0]: HOSTILE[1]},
            card={HOSTILE[2]: HOSTILE[4]},
        ),
    ],
    ids=["usual", "empty", "hostile failures", "hostile everything"],
)
def test_the_page_is_valid_html(tmp_path: Path, report: ReportData) -> None:
    assert words(page(tmp_path, report))


def test_the_page_shows_the_numbers_failures_and_settings(tmp_path: Path) -> None:
    text = words(page(tmp_path))
    for phrase in (
        "3 photos, summer to winter",
        "Translated 5",
        "Failed 1",
        "In this run 3",
        "Time 1 min 32 s",
        "From /photos to /photos winter",
        "broken.jpg decode The file ends early.",
        "odd.jpg EXIF dropped: no TIFF header",
        "size 256 keep profile no",
        "name summer2winter Architecture, training and scores scores fid 74.2",
        "Left out Files and folders that were not taken for photos. .mov 3@eaDir/ 1",
    ):
        assert phrase.replace(" ", "") in text.replace(" ", "")


def test_a_run_without_failures_shows_that(tmp_path: Path) -> None:
    assert "every photo was converted" in words(page(tmp_path, data(failures=[])))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    report = data(
        comparisons=[photo(name) for name in HOSTILE],
        failures=[Remark(path=name, stage="decode", text=name) for name in HOSTILE],
    )
    html = page(tmp_path, report)
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)
    assert len(list(tree.iter("script"))) == len(HOSTILE) + 1
    assert not [e for e in tree.iter() if isinstance(e.tag, str) and any(name.startswith("on") for name in e.attrib)]
    assert not re.search("[\u202e\x00\x07]", html)
    cells = ["".join(cell.itertext()) for cell in tree.iter("td") if cell.get("class") == "path"]
    assert cells == [shown(name) for name in HOSTILE] + ["odd.jpg"]


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert "default-src 'none'" in html
    assert re.findall(r"https?://[^'\"\s)]+", html) == ["http://www.w3.org/2000/svg"]
    assert not re.findall(r"<(?:link|iframe|object|embed|base)\b|@import", html)


def test_the_page_appears_only_when_whole(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Comparison]:
        yield photo("one.jpg")
        raise KeyboardInterrupt

    class Broken(list[Comparison]):
        def __iter__(self) -> Iterator[Comparison]:
            return interrupted()

    (tmp_path / "report.html").write_text("the last one")
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path / "report.html", data(comparisons=Broken([photo("one.jpg")])))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "the last one"


# Words and numbers.


def test_control_characters_are_replaced_by_visible_ones() -> None:
    assert shown("a\x00b\nc\x7f\x85") == "a␀b␊c␡\ufffd"
    assert shown("\udcff") == "\\udcff"
    assert shown("Фото 写真 🏔") == "Фото 写真 🏔"


def test_nested_fields_are_flattened_and_empty_ones_dropped() -> None:
    fields = {"a": 1, "b_c": {"d": True, "e": None, "f": ""}, "g": [1, 2], "h": [], "i": 0}
    assert flat(fields) == [("a", "1"), ("b c d", "yes"), ("g", "1, 2"), ("i", "0")]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.5, "9.5 s"), (59.6, "1 min 0 s"), (92, "1 min 32 s"), (7264, "2 h 1 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0.00"), (3.14159, "3.14"), (31.4159, "31.4"), (31415.9, "31,416")])
def test_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


@pytest.mark.parametrize("largest", [0.0, 0.03, 1, 4.2, 9.9, 17.3, 99, 1234])
def test_a_scale_covers_the_largest_value_with_a_few_ticks(largest: float) -> None:
    top, ticks = nice_scale(largest)
    assert top >= largest
    assert ticks[0] == 0
    assert 3 <= len(ticks) <= 7


def test_the_plot_shows_images_per_second() -> None:
    fast_then_slow = [(float(s), 10 * s if s < 30 else 300 + 2 * (s - 30)) for s in range(61)]
    shown_plot = plot(fast_then_slow)
    assert shown_plot is not None
    heights = [100 - float(y) for y in re.findall(r"[ML]\S+ (\S+?)(?=L|$)", shown_plot["line"])]
    top = float(shown_plot["y_ticks"][-1]["label"])
    assert heights[1] * top / 100 == pytest.approx(10, rel=0.02)
    assert heights[-1] * top / 100 == pytest.approx(2, rel=0.02)
    assert shown_plot["mean"] == "6.00"


def test_a_run_too_short_has_no_plot() -> None:
    assert plot([]) is None
    assert plot([(0.0, 0), (0.2, 1), (0.4, 2)]) is None


# The browser.


@pytest.fixture(scope="module")
def open_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., webdriver.Chrome]]:
    """Open a report in headless Chromium, at a size and in a colour scheme."""
    folder = tmp_path_factory.mktemp("browser")
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder / 'profile'}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))

    def open_report(
        report: ReportData, width: int = 1280, height: int = 900, scheme: str = "light"
    ) -> webdriver.Chrome:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        write_report(folder / "report.html", report)
        browser.get((folder / "report.html").as_uri())
        return browser

    yield open_report
    browser.quit()


def divider(frame: WebElement) -> float:
    """Return the position of the divider in percent, as the browser computed it."""
    clip = frame.find_element(By.CSS_SELECTOR, ".after").value_of_css_property("clip-path")
    found = re.fullmatch(r"inset\(0(?:px|%) 0(?:px|%) 0(?:px|%) ([\d.]+)%\)", clip)
    assert found, clip
    return float(found[1])


def frames(browser: webdriver.Chrome) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, ".frame")


needs_browser = pytest.mark.needs_browser


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_slider_follows_the_mouse(open_page: Callable[..., webdriver.Chrome], width: int) -> None:
    browser = open_page(data(), width=width)
    frame = frames(browser)[0]
    assert divider(frame) == 50
    quarter = frame.size["width"] // 4
    drag = ActionChains(browser).move_to_element(frame).click_and_hold()
    drag.move_by_offset(-quarter, 10).move_by_offset(2 * quarter, -10).release().perform()
    assert divider(frame) == pytest.approx(75, abs=1.5)
    assert frame.find_element(By.TAG_NAME, "input").get_attribute("value") == "75"
    ActionChains(browser).move_by_offset(-quarter, 0).perform()
    assert divider(frame) == pytest.approx(75, abs=1.5), "it moves only while it is held"
    ActionChains(browser).move_to_element_with_offset(frame, -quarter, 0).click().perform()
    assert divider(frame) == pytest.approx(25, abs=1.5), "a click moves it at once"


@needs_browser
def test_the_slider_follows_the_keyboard(open_page: Callable[..., webdriver.Chrome]) -> None:
    browser = open_page(data())
    for _ in range(30):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        focused = browser.switch_to.active_element
        if focused.get_attribute("type") == "range":
            break
    assert focused.get_attribute("aria-label") == "Divider between before and after of a/one.jpg"
    focused.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert divider(frames(browser)[0]) == 53
    focused.send_keys(Keys.ARROW_LEFT)
    assert divider(frames(browser)[0]) == 52
    assert focused.get_attribute("aria-valuetext") == "52 % before, 48 % after"
    focused.send_keys(Keys.HOME)
    assert divider(frames(browser)[0]) == 0
    focused.send_keys(Keys.END)
    assert divider(frames(browser)[0]) == 100
    assert divider(frames(browser)[1]) == 50, "the others stay"


@needs_browser
def test_buttons_set_every_photo(open_page: Callable[..., webdriver.Chrome]) -> None:
    browser = open_page(data())
    for button, percent in zip(browser.find_elements(By.CSS_SELECTOR, ".choice button"), (100, 50, 0), strict=True):
        button.click()
        assert [divider(frame) for frame in frames(browser)] == [percent] * 3


@needs_browser
def test_both_images_are_there_and_overlap(open_page: Callable[..., webdriver.Chrome]) -> None:
    browser = open_page(data())
    for frame in frames(browser):
        browser.execute_script("arguments[0].scrollIntoView()", frame)
        before, after = frame.find_elements(By.TAG_NAME, "img")
        wait_until(browser, partial(after.get_property, "naturalWidth"))
        assert before.get_property("naturalWidth") == after.get_property("naturalWidth")
        assert before.rect == after.rect
        assert before.get_attribute(
            "alt",
        ) != after.get_attribute("alt")


def wait_until(browser: webdriver.Chrome, condition: Callable[[], Any]) -> None:
    WebDriverWait(browser, 20).until(lambda _: condition())


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_everything_fits_and_can_be_read(open_page: Callable[..., webdriver.Chrome], width: int, scheme: str) -> None:
    """No sideways scrolling, and text stands out from the page at 4.5 to 1 (WCAG 2.2, criterion 1.4.3)."""
    long_name = "a" * 300 + ".jpg"
    failures = [Remark(path=name, stage="decode", text=name * 3) for name in [*HOSTILE, long_name]]
    browser = open_page(data(failures=failures, comparisons=[photo(long_name)]), width=width, scheme=scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    page_colour = luminance(browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color"))
    assert (page_colour > 0.8) == (scheme == "light")
    for selector in ("h1", ".route", ".figures dt", ".figures .bad a", ".rows td.path", ".facts dt", "footer", ".mark"):
        text = luminance(browser.find_element(By.CSS_SELECTOR, selector).value_of_css_property("color"))
        low, high = sorted((text, page_colour))
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector


def luminance(css: str) -> float:
    """Return the relative luminance of a CSS colour (WCAG 2.2)."""
    levels = np.array([float(number) for number in re.findall(r"[\d.]+", css)[:3]]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@needs_browser
def test_failures_are_listed_and_their_number_links_to_them(open_page: Callable[..., webdriver.Chrome]) -> None:
    browser = open_page(data())
    browser.find_element(By.LINK_TEXT, "1").click()
    assert browser.current_url.endswith("#failures")
    row = browser.find_element(By.CSS_SELECTOR, "#failures tbody tr")
    assert row.is_displayed()
    assert row.text.split("\n") == ["broken.jpg decode The file ends early."]


@needs_browser
def test_hostile_names_do_nothing(open_page: Callable[..., webdriver.Chrome]) -> None:
    report = data(
        comparisons=[photo(name) for name in HOSTILE],
        failures=[Remark(path=name, stage="decode", text=name) for name in HOSTILE],
    )
    browser = open_page(report)
    assert browser.title == "3 photos, summer to winter"
    names = [element.text for element in browser.find_elements(By.CSS_SELECTOR, "figcaption bdi")]
    assert names == [shown(name) for name in HOSTILE]


@needs_browser
def test_many_photos_are_added_in_portions_and_loaded_when_near(open_page: Callable[..., webdriver.Chrome]) -> None:
    pair = photo("x.jpg")
    browser = open_page(data(comparisons=[replace(pair, name=f"{i // 50:02d}/{i:04d}.jpg") for i in range(400)]))
    more = browser.find_element(By.ID, "more")
    assert len(frames(browser)) == 48
    assert more.text == "Show 48 more of 352"
    for _ in range(3):
        browser.execute_script("arguments[0].click()", more)
    assert len(frames(browser)) == 192
    wait_until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".frame img[src]"))
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", frames(browser)[-1])
    wait_until(browser, lambda: frames(browser)[-1].find_element(By.TAG_NAME, "img").get_attribute("src"))
    wait_until(browser, lambda: not frames(browser)[0].find_element(By.TAG_NAME, "img").get_attribute("src"))
    browser.find_element(By.ID, "filter").send_keys("03/ 17")
    assert browser.find_element(By.ID, "photos-count").text == "10 photos match."
    names = [element.text for element in browser.find_elements(By.CSS_SELECTOR, "figcaption bdi")]
    assert names == [f"03/0{number}.jpg" for number in range(170, 180)]
    browser.find_element(By.ID, "filter").send_keys(Keys.BACKSPACE * 6)
    assert len(frames(browser)) == 48


@pytest.fixture(autouse=True)
def _no_console_errors(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a browser test whose page wrote to the console: errors, warnings, refused resources."""
    yield
    if "open_page" in request.fixturenames:
        browser = request.getfixturevalue("open_page")(data())
        assert browser.get_log("browser") == []
