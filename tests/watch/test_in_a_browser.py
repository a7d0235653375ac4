"""The page as a person has it, in headless Chromium; skipped where there is none."""

import pytest
from browser import Browser, chromium
from PIL import Image
from watched_page import END, Page, journal, make_run, step

from edge_train.records.lines import encode

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(chromium() is None, reason="no Chromium is installed"),
]


@pytest.fixture
def page(tmp_path):
    run = make_run(tmp_path / "<b>dog & cat", 50, planned=100)
    Image.new("RGB", (32, 32), "red").save(run / "samples" / "after-01.png")
    make_run(tmp_path / "done", 5, END)
    with Page(tmp_path) as page:
        yield page


def test_a_person_sees_runs_curves_and_pictures_and_can_resume_one(page, tmp_path):
    resumed = []
    page.runs.resume = resumed.append
    with Browser() as browser:
        browser.open(f"http://127.0.0.1:{page.port}/")
        browser.wait_for("document.querySelectorAll('nav button').length === 2")
        browser.value("document.querySelectorAll('nav button b').forEach((one) => "
                      "one.textContent.includes('dog') && one.parentNode.click())")  # fmt: skip
        browser.wait_for("document.querySelector('h2')?.textContent === '<b>dog & cat'")
        assert browser.value("document.querySelectorAll('svg path.line').length") == 2
        browser.wait_for("document.querySelector('figure img')?.naturalWidth === 32")
        assert "broken off" in browser.text()
        assert "of 100" in browser.text()
        with (tmp_path / "<b>dog & cat" / "journal.jsonl").open("ab") as file:
            file.write(encode(step(50, eval=0.0123)))
        browser.value("look()")
        browser.wait_for("document.body.innerText.includes('0.01230')")
        browser.value("document.querySelector('.does button.primary').click()")
        while not resumed:
            browser.value("1")
        assert resumed == ["<b>dog & cat"]
        browser.open(f"http://127.0.0.1:{page.port}/run/done/report.html")
        browser.wait_for("document.body.innerText.includes('the report')")
        assert browser.problems == []


@pytest.mark.slow  # a browser takes two seconds of processor time
def test_it_fits_a_phone_in_the_dark_and_survives_what_is_missing(page, tmp_path):
    (tmp_path / "done" / "journal.jsonl").write_bytes(journal(3) + b"damaged\n" + journal(3))
    with Browser(390, 800, dark=True) as browser:
        browser.open(f"http://127.0.0.1:{page.port}/#done")
        browser.wait_for("document.body.innerText.includes('damaged after step 3')")
        assert browser.value("document.documentElement.scrollWidth") == 390
        shade = browser.value("getComputedStyle(document.body).backgroundColor")
        assert shade == "rgb(20, 20, 19)"
        for run in tmp_path.iterdir():
            (run / "journal.jsonl").unlink()
            (run / "recipe.toml").unlink()
        browser.value("look()")
        browser.wait_for("document.body.innerText.includes('No run here yet')")


@pytest.mark.slow  # a browser takes two seconds of processor time
def test_the_password_opens_the_page_of_another_machine_once(tmp_path):
    make_run(tmp_path / "dog", 5)
    with Page(tmp_path, host="0.0.0.0") as page, Browser() as browser:
        browser.open(f"http://127.0.0.1:{page.port}/")
        browser.wait_for("document.querySelector('#password') !== null")
        password = page.said[0].rpartition(" ")[2]
        for typed in ("wrong", password):
            browser.open(f"http://127.0.0.1:{page.port}/")
            browser.wait_for("document.querySelector('#password') !== null")
            browser.value(f"document.querySelector('#password').value = '{typed}'; "
                          "document.querySelector('form').submit()")  # fmt: skip
            wanted = "this is not the password" if typed == "wrong" else "dog"
            browser.wait_for(f"document.body.innerText.includes('{wanted}')")
