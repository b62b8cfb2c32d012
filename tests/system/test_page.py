"""The page of ``arbitrage serve`` in a real browser: which model writes each step, as it is written."""

import re
import shutil
from contextlib import ExitStack

import pytest

pytest.importorskip("fastapi")
sync_api = pytest.importorskip("playwright.sync_api")
from arbitrage.engines.scripted import RealClock  # noqa: E402
from arbitrage.serving.keys import Keys  # noqa: E402
from serving_kit import expected, running, scripted_pair  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
QUESTION = "What is <b>6 * 7</b>?"


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens the page of a new server; nothing may be logged as an error but a missing key."""
    complaints, stack = [], ExitStack()

    def open_page(loaded=None, *, width=1280, scheme="light", **options):
        server = stack.enter_context(running(loaded or scripted_pair(), **options))
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        stack.callback(context.close)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.goto(server.url)
        return page, server

    with stack:
        yield open_page
    assert [text for text in complaints if "401" not in text] == []


def ask(page, question=QUESTION):
    page.wait_for_selector("#method option", state="attached")
    page.fill("#question", question)
    page.press("#question", "Enter")


def steps_of(page, column=0):
    """Author and text of each step of an answer."""
    steps = page.locator(".answers").last.locator(".answer").nth(column).locator(".step")
    return [
        (step.get_attribute("data-author"), step.locator(".text").text_content())
        for step in (steps.nth(i) for i in range(steps.count()))
    ]


def test_an_answer_is_coloured_by_author_with_rejected_steps_and_scores(opened):
    page, _ = opened()
    ask(page)
    page.wait_for_selector(".outcome")
    steps = steps_of(page)
    assert [author for author, _ in steps] == ["draft", "target", "draft", "target"]
    assert "\n\n".join(text for _, text in steps) == expected(QUESTION)
    assert page.locator(".question").text_content() == QUESTION  # Its tags are text.
    rejected = page.locator(".rejected s")
    assert rejected.count() == 2
    assert rejected.first.is_visible()
    page.uncheck("#rejected")
    assert not rejected.first.is_visible()
    meta = page.locator(".step .meta").first
    assert re.fullmatch(r"prm 0\.90 \(threshold 0\.70\) · \d+ ms", meta.text_content())
    assert meta.evaluate("one => getComputedStyle(one).opacity") == "0"
    page.locator(".step").first.hover()
    assert meta.evaluate("one => getComputedStyle(one).opacity") == "1"
    assert "steps: 2 draft, 2 target" in page.locator(".outcome").text_content()


def test_the_target_answers_beside_it_and_the_next_question_knows_the_conversation(opened):
    page, _ = opened()
    page.wait_for_selector("#method option", state="attached")
    page.check("#compare")
    ask(page)
    sync_api.expect(page.locator(".outcome")).to_have_count(2)
    assert {author for author, _ in steps_of(page, 1)} == {"target"}
    clocks = page.locator(".clock").all_text_contents()
    assert len(clocks) == 2
    assert all(re.fullmatch(r"\d+\.\d s", text) for text in clocks)
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "And now?")
    messages = sent.value.post_data_json["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == expected(QUESTION)


def test_method_and_threshold_are_those_of_the_next_request(opened):
    page, _ = opened()
    page.wait_for_selector("#method option", state="attached")
    assert page.input_value("#method") == "rsd"
    page.fill("#threshold", "0.95")
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page)
    body = sent.value.post_data_json
    assert (body["model"], body["arbitrage"]) == ("pair/rsd", {"threshold": 0.95, "events": True})
    page.wait_for_selector(".outcome")
    assert {author for author, _ in steps_of(page)} == {"target"}
    page.select_option("#method", "draft")
    assert not page.is_visible("#threshold")


def test_a_running_request_is_shown_and_can_be_stopped(opened):
    page, server = opened(scripted_pair(clock=RealClock(), seconds_per_token=0.3))
    ask(page)
    page.wait_for_selector("#requests td.strip")
    page.click("#stop")
    page.wait_for_selector(".outcome")
    assert page.locator(".outcome").text_content() == "stopped"
    sync_api.expect(page.locator("#running")).to_have_text("0")
    assert server.loaded.pair.draft.open_sessions == 0
    assert page.is_enabled("#send")


def test_a_key_is_asked_for_where_one_is_needed(opened):
    page, _ = opened(keys=Keys((b"secret",)))
    page.wait_for_selector("#key")
    assert "API key" in page.locator("#error").text_content()
    page.fill("#key", "secret")
    ask(page)
    page.wait_for_selector(".outcome")
    assert len(steps_of(page)) == 4


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_its_texts_stand_out(opened, width, scheme):
    page, _ = opened(width=width, scheme=scheme)
    ask(page)
    page.wait_for_selector(".outcome")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for selector in (".draft .author", ".target .author", ".step .text", ".rejected .text", "dt", ".outcome"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector


CONTRAST = """selector => {
  const light = (color) => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const value = part / 255;
      return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const text = document.querySelector(selector);
  let ground = text;
  while (/, 0\\)$|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
  const colors = [getComputedStyle(text).color, getComputedStyle(ground).backgroundColor];
  const pair = colors.map(light).sort((a, b) => b - a);
  return (pair[0] + 0.05) / (pair[1] + 0.05);
}"""
"""The contrast of a text to what is behind it, by WCAG 2."""
