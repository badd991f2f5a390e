"""The page in a real browser: Debian's chromium, without network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.report import main, report

pytestmark = pytest.mark.integration

WriteRun = Callable[..., Path]

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PNG = b"\x89PNG\r\n\x1a\n"
EVIL = "</script><script>document.title='broken in'</script><img src=x onerror=\"document.title='in'\">"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1200,1000",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, write_run: WriteRun) -> Path:
    """The report of two algorithms, two partitions, one with a hostile name; two seeds."""
    folder = tmp_path_factory.mktemp("report")
    for algorithm, gain in (("fedavg", 0.0), ("spatl", 0.125)):
        for partition in ("iid", EVIL):
            for seed in (0, 1):
                write_run(
                    folder, f"{algorithm}-{len(partition)}-{seed}",
                    [(0.25, 0.25), (0.5 + gain, 0.5)], algorithm=algorithm, partition=partition,
                    seed=seed, clients=[[0.5], [0.5 + gain]], versions='{"python": "3.99"}',
                    config=json.dumps({"name": EVIL, "algorithm": {"name": algorithm}}),
                )  # fmt: skip
    assert main([str(folder)]) == 0
    return folder / "report.html"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A headless Chromium with an empty profile."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def _rows(browser: Any, table: str) -> list[list[str]]:
    """The rows that can be seen, as texts."""
    script = """
        const rows = document.querySelectorAll(`table[data-name="${arguments[0]}"] tbody tr`);
        return [...rows].filter((row) => row.offsetParent !== null)
            .map((row) => [...row.cells].map((cell) => cell.textContent));
    """
    found: list[list[str]] = browser.execute_script(script, table)
    return found


def _click(browser: Any, selector: str) -> None:
    browser.find_element("css selector", selector).click()


def test_filters_charts_and_tables_in_a_browser(page: Path, browser: Any, tmp_path: Path) -> None:
    browser.get(page.as_uri())
    assert browser.get_log("browser") == [], "no error, nothing refused, nothing fetched"
    assert browser.title == "Federated runs"
    assert len(_rows(browser, "accuracy")) == 4
    assert len(_rows(browser, "runs")) == 8
    assert len(browser.find_elements("css selector", "#charts svg path.series")) == 4
    texts = browser.find_elements(
        "css selector", '#charts svg:first-of-type text[text-anchor="middle"]'
    )
    assert {t.text for t in texts if t.text[:1].isdigit()} == {"0", "1"}, "no half rounds"

    _click(browser, 'input[data-kind="algorithm"][value="spatl"]')
    kept = _rows(browser, "accuracy")
    assert [row[1:3] for row in kept] == [["FedAvg", "2"]] * 2
    assert _rows(browser, "savings") == [], "each is about both"
    assert len(_rows(browser, "runs")) == 4
    count = browser.find_element("css selector", "#count-accuracy").text
    assert count == "2 of 4 rows"
    assert len(browser.find_elements("css selector", "#charts svg path.series")) == 2
    assert len(browser.find_elements("css selector", "details:not([hidden])")) == 4

    _click(browser, 'input[data-kind="partition"][value="iid"]')
    (row,) = _rows(browser, "accuracy")
    tests = browser.find_element("xpath", "//section[.//table[@data-name='significance']]").text
    assert "Over all partitions, whatever the filters say." in tests
    assert row[0] == EVIL, "as text"
    _click(browser, 'input[data-kind="partition"][value="iid"]')
    _click(browser, 'input[data-kind="algorithm"][value="spatl"]')
    assert len(_rows(browser, "accuracy")) == 4

    _click(browser, "#legend button")
    labels = {
        path.get_attribute("data-label")
        for path in browser.find_elements("css selector", "#charts path.series")
    }
    assert labels == {"SPATL"}
    _click(browser, "#legend button")
    _click(browser, '#choose-x option[value="megabytes"]')
    hover = browser.find_element("css selector", "#charts svg")
    browser.execute_script(
        """const box = arguments[0].getBoundingClientRect();
        arguments[0].dispatchEvent(new MouseEvent("mousemove",
            {clientX: box.right - 12, clientY: box.top + 10}));""",
        hover,
    )
    tip = browser.find_element("css selector", "#tip").text
    assert tip.splitlines() == [
        "SPATL", "round 1", "sent up and down so far (MB): 6", "0.625 \u00b1 0 (2 seeds)",
    ]  # fmt: skip

    _click(browser, 'table[data-name="runs"] th:nth-child(1) button')
    _click(browser, 'table[data-name="runs"] th:nth-child(1) button')
    names = [row[0] for row in _rows(browser, "runs")]
    assert names == sorted(names, reverse=True)
    shot = tmp_path / "report.png"
    assert browser.save_screenshot(str(shot))
    assert shot.read_bytes().startswith(PNG)
    assert shot.stat().st_size > 20_000, "something is on it"


def test_the_page_loads_nothing_and_escapes_everything(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert text.count("<script") == text.count("</script>") == 2
    links = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert links
    assert all(link.startswith("data:") for link in links)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert "default-src 'none'" in text
    assert "python&quot;: &quot;3.99&quot;" in text


def test_half_written_runs_are_told(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "done")
    write_run(tmp_path, "begun", [], status="running", algorithm="spatl")
    orphan = write_run(tmp_path / "more", "orphan")
    shutil.rmtree(orphan / "runs")
    shutil.move(orphan / "rounds" / "run_id=orphan", tmp_path / "rounds" / "run_id=orphan")
    page = report(tmp_path)
    assert "2 runs: 1 finished, 1 running." in page or "2 runs: 1 running, 1 finished." in page
    assert "Left out, for they have no row in table runs: orphan." in page
    assert "begun - no rounds yet" in page


def test_what_cannot_be_read_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} holds no results")


def test_of_a_crowd_the_best_are_shown_at_first(tmp_path: Path, write_run: WriteRun) -> None:
    """Of 12 methods that end at i / 100, the first two; all stay in the legend."""
    for i in range(12):
        config = json.dumps({"algorithm": {"keep": i}})
        write_run(tmp_path, f"r{i:02}", [(i / 100, 0.5)], config=config)
    page = report(tmp_path, baselines=["FedAvg, keep 3"])
    found = re.search(r'id="data">(.*?)</script>', page)
    assert found
    data = json.loads(found[1])
    assert data["hidden"] == ["FedAvg, keep 0", "FedAvg, keep 1"]
    labels = [series["label"] for series in data["series"]]
    assert len(labels) == 12
    assert labels[-2:] == data["hidden"]
    assert "2 methods are hidden at first" in page
    savings = page[page.index('data-name="savings"') :]
    assert savings[: savings.index("</tbody>")].count("<tr data-of") == 11
