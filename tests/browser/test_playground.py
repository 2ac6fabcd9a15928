"""The playground does what it shows: every number on it is checked against the API."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Witness, embed
from tests.e2e.process import Client

LONG = " ".join(["overlong"] * 400)


def lines(page: Page) -> list[str]:
    content: str = page.locator("#texts").input_value()
    return content.split("\n")


def tokens_of(page: Page, texts: list[str]) -> list[list[dict[str, Any]]]:
    """What POST /tokenize says to this page."""
    found: list[list[dict[str, Any]]] = page.evaluate(
        """texts => fetch("/tokenize", {
            method: "POST",
            headers: {"Content-Type": "application/json"},
            body: JSON.stringify({inputs: texts, add_special_tokens: true}),
        }).then(reply => reply.json())""",
        texts,
    )
    return found


def cosines(left: list[list[float]], right: list[list[float]]) -> Any:
    a, b = np.array(left), np.array(right)
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return a @ b.T / lengths


def test_it_says_what_runs(page: Page, server: Client) -> None:
    status, info = server.get("/").json, server.get("/model_info").json
    expect(page.locator("h1")).to_have_text(status["model"])
    for name, value in (
        ("Dimensions", status["dimensions"]),
        ("Max tokens", status["max_tokens"]),
        ("Precision", info["precision"]),
        ("Fingerprint", info["fingerprint"]),
    ):
        row = page.locator("#facts div").filter(has_text=name)
        expect(row.locator("dd")).to_have_text(str(value))
    expect(page.locator("#phase")).to_have_text("ready")
    expect(page.locator("#load dt").first).to_have_text("Uptime")
    expect(page.locator("#load dd").first).to_have_text(re.compile(r"^\d+ (s|min \d+ s)$"))


def test_one_click_shows_everything(page: Page) -> None:
    assert page.locator("#results").is_hidden()
    texts = lines(page)
    embed(page)
    assert page.locator("#tokens li").count() == len(texts)
    assert page.locator("#heat td[data-row]").count() == len(texts) ** 2
    assert page.locator("#map g").count() == len(texts)
    assert page.locator("#ranking li").count() == len(texts)
    expect(page.locator("#summary")).to_contain_text(f"{len(texts)} texts")
    assert page.locator("#message").is_hidden()
    assert page.locator("#notices").is_hidden()


def test_tokens_are_the_models_own(page: Page) -> None:
    texts = ["Unbelievable tokenization!", "naïve café 東京", "<b>not markup</b> &amp; 👩‍🚀"]
    page.locator("#texts").fill("\n".join(texts))
    embed(page)
    for row, tokens in enumerate(tokens_of(page, texts)):
        shown = page.locator("#tokens li").nth(row).locator(".token")
        assert shown.all_text_contents() == [token["text"] for token in tokens]
        specials = shown.evaluate_all("all => all.map(one => one.classList.contains('special'))")
        assert specials == [token["special"] for token in tokens]
    assert page.locator("#tokens b").count() == 0


def test_truncation_is_shown(page: Page, server: Client) -> None:
    page.locator("#texts").fill(f"short\n{LONG}")
    embed(page)
    (cut,) = server.post("/embed", {"texts": ["short", LONG]}).json["truncated"]
    row = page.locator("#tokens li").nth(1)
    expect(row.locator(".truncated")).to_have_text(
        f"truncated: {cut['used']} of {cut['tokens']:,} tokens are used"
    )
    struck = row.locator("s.token")
    assert struck.count() == cut["tokens"] - cut["used"]
    assert struck.first.evaluate("one => getComputedStyle(one).textDecorationLine") == (
        "line-through"
    )
    # The closing special token is kept, so the last one is not struck out.
    assert row.locator(".token").last.evaluate("one => one.tagName") == "SPAN"
    assert page.locator("#tokens li").first.locator("s").count() == 0
    expect(page.locator("#notices")).to_contain_text("1 text truncated")


def test_the_heat_map_is_the_cosines(page: Page, server: Client) -> None:
    texts = lines(page)
    embed(page)
    vectors = server.embed(texts)
    expected = cosines(vectors, vectors)
    cells = page.locator("#heat td[data-row]").all_text_contents()
    shown = np.array([float(cell) for cell in cells]).reshape(expected.shape)
    assert np.abs(shown - expected).max() < 0.0051
    page.locator("#heat td[data-row='0'][data-column='1']").hover()
    readout = page.locator("#heat-readout")
    assert float(readout.locator("b").inner_text()) == pytest.approx(expected[0, 1], abs=6e-5)
    expect(readout).to_contain_text(texts[0])
    expect(readout).to_contain_text(texts[1])


def test_the_map_has_a_point_a_text_at_its_place(page: Page, server: Client) -> None:
    texts = lines(page)
    embed(page)
    places = page.locator("#map circle").evaluate_all(
        "all => all.map(one => [one.cx.baseVal.value, one.cy.baseVal.value])"
    )
    vectors = np.array(server.embed(texts))
    centred = vectors - vectors.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    plane = u[:, :2] * s[:2]
    # Up to the sign of each axis and one scale, the map is numpy's.
    shown = np.array(places) - np.mean(places, axis=0)
    for axis in (0, 1):
        a, b = shown[:, axis], plane[:, axis]
        assert abs(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) > 0.9999
    kept = round(100 * (s[:2] ** 2).sum() / (s**2).sum())
    expect(page.locator("#map-kept")).to_contain_text(f"{kept} %")
    page.locator("#map circle").nth(2).hover()
    expect(page.locator("#map-readout")).to_contain_text(texts[2])


def test_labels_of_the_map_do_not_overlap(page: Page) -> None:
    embed(page)
    boxes = page.locator("#map text").evaluate_all(
        "all => all.map(one => { const b = one.getBBox(); return [b.x, b.y, b.width, b.height]; })"
    )
    assert len(boxes) >= len(lines(page)) - 1
    for i, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[:i]:
            wide = min(x + w, x2 + w2) - max(x, x2)
            high = min(y + h, y2 + h2) - max(y, y2)
            assert wide <= 0 or high <= 2, "two labels lie on each other"


def test_search_ranks_as_the_api_does(page: Page, server: Client) -> None:
    texts = lines(page)
    embed(page)
    query = "How do I make dough for bread?"
    page.get_by_role("searchbox", name="Query").fill(query)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#ranking .ranked").first).to_have_text(
        "Knead the dough until it is smooth and elastic."
    )
    scores = cosines(server.embed([query], mode="query"), server.embed(texts, mode="passage"))[0]
    order = [texts[i] for i in np.argsort(-scores)]
    assert page.locator("#ranking .ranked").all_text_contents() == order
    shown = [float(one) for one in page.locator("#ranking .score").all_text_contents()]
    assert shown == pytest.approx(sorted(scores, reverse=True), abs=6e-5)
    widths = page.locator("#ranking .score-bar").evaluate_all(
        "all => all.map(one => one.style.getPropertyValue('--score'))"
    )
    assert float(widths[0].removesuffix("%")) == pytest.approx(100 * max(scores), abs=0.01)


def test_search_uses_what_the_box_holds_now(page: Page) -> None:
    embed(page)
    page.locator("#texts").fill("a red bicycle\nthe theory of relativity")
    page.locator("#query").fill("physics")
    page.locator("#query").press("Enter")
    expect(page.locator("#ranking .ranked")).to_have_text(
        ["the theory of relativity", "a red bicycle"]
    )


@pytest.mark.parametrize(("choice", "mode"), [("Query", "query"), ("Document", "document")])
def test_intent_travels(page: Page, choice: str, mode: str) -> None:
    page.locator(".segments").get_by_text(choice, exact=True).click()
    with page.expect_request("**/embed") as asked:
        page.locator("#embed").click()
    assert json.loads(asked.value.post_data or "")["mode"] == mode
    page.locator("#ranking li").first.wait_for()


def test_one_text_and_equal_texts_are_no_trouble(page: Page) -> None:
    for content, points in (("alone", 1), ("same\nsame\nsame", 3), ("a\n\n  \nb", 2)):
        page.locator("#texts").fill(content)
        embed(page)
        expect(page.locator("#map g")).to_have_count(points)
        assert "NaN" not in page.locator("main").inner_html()


def test_no_text_is_said(page: Page) -> None:
    page.locator("#texts").fill(" \n ")
    page.locator("#embed").click()
    expect(page.locator("#message")).to_have_text("Type at least one text, one a line.")
    expect(page.locator("#texts")).to_be_focused()


def test_bounds_are_said(page: Page) -> None:
    page.locator("#texts").fill("\n".join(f"text number {n}" for n in range(250)))
    embed(page)
    expect(page.locator("#notices")).to_contain_text("the first 200 of 250 texts are used")
    expect(page.locator("#notices")).to_contain_text("heat map shows the first 40 of 200 texts")
    expect(page.locator("#map g")).to_have_count(200)
    page.locator("#texts").fill("\n".join(["word " * 20_000] * 11))
    page.locator("#embed").click()
    expect(page.locator("#notices")).to_contain_text("the first 2 of 11 texts are used")
    expect(page.locator("#notices")).to_contain_text("list of tokens ends at 4,000 of 40,004")


def test_errors_are_in_the_servers_words(open_page: Open, witness: Witness) -> None:
    witness.allowed = ("400 (Bad Request)", "422 (Unprocessable Entity)")  # ours, and TEI's
    page = open_page()
    page.locator("#texts").fill("fine\nx\x00y")
    page.locator("#embed").click()
    expect(page.locator("#message")).to_contain_text("texts[1] contains NUL (U+0000)")
    assert page.locator("#vectors").is_hidden()


def test_a_server_that_is_gone_is_said(open_page: Open, witness: Witness) -> None:
    witness.allowed = ("ERR_INTERNET_DISCONNECTED",)
    page = open_page()
    page.locator("#phase.ok").wait_for()
    page.context.set_offline(True)
    page.locator("#embed").click()
    expect(page.locator("#message")).to_contain_text("The server does not answer")
    expect(page.locator("#phase")).to_have_text("not answering")
    page.context.set_offline(False)
    page.locator("#phase.ok").wait_for()


def snippet(page: Page, name: str) -> str:
    """What the copy button puts on the clipboard."""
    page.get_by_role("tab", name=name, exact=True).click()
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    copied: str = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#code").inner_text()
    expect(page.locator("#copy")).to_have_text("Copy")
    return copied


def test_the_lines_to_copy_run(page: Page, server: Client, tmp_path: Path) -> None:
    dimensions = server.get("/").json["dimensions"]
    curl = snippet(page, "curl")
    assert f":{server.port}/" in curl
    done = subprocess.run(
        ["bash", "-c", curl], capture_output=True, text=True, timeout=30, check=True
    )
    assert [len(row["embedding"]) for row in json.loads(done.stdout)["data"]] == [dimensions] * 2

    python = snippet(page, "Python")
    assert f":{server.port}/" in python
    script = tmp_path / "snippet.py"
    script.write_text(python, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == [str(dimensions)] * 2

    fetch = snippet(page, "fetch").replace("console.log(", "return (")
    assert page.evaluate(f"async () => {{ {fetch} }}") == [dimensions] * 2

    javascript = snippet(page, "JavaScript")
    assert f'baseURL: "http://127.0.0.1:{server.port}/v1"' in javascript


def test_the_keyboard_is_enough(page: Page) -> None:
    """From the top of the page, by Tab alone: every stop is visible, nothing traps."""
    focus = "document.activeElement.id || document.activeElement.textContent.trim()"
    seen = []
    for _ in range(9):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focus))
        ring = page.evaluate(
            """(() => {
                const at = document.activeElement;
                const style = getComputedStyle(at.type === "radio" ? at.nextElementSibling : at);
                const drawn = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
                return drawn || at.classList.contains("skip");
            })()"""
        )
        assert ring, f"no visible focus on {seen[-1]!r}"
    assert seen[:8] == [
        "Skip to the texts",
        "cortex-embed",
        "Playground",
        "API",
        "theme",
        "examples",
        "long",
        "texts",
    ]
    page.locator("#texts").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("one text")
    page.keyboard.press("Enter")
    page.keyboard.type("another text")
    page.keyboard.press("Control+Enter")
    page.locator("#ranking li").first.wait_for()
    assert page.locator("#tokens li").count() == 2


def test_heat_map_and_map_by_keyboard(page: Page) -> None:
    embed(page)
    texts = lines(page)
    cell = page.locator("#heat td[data-row][tabindex='0']")
    assert cell.count() == 1
    cell.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    at = page.evaluate(
        "[document.activeElement.dataset.row, document.activeElement.dataset.column]"
    )
    assert at == ["1", "2"]
    expect(page.locator("#heat-readout")).to_contain_text(texts[2])
    page.locator("#map g[tabindex='0']").focus()
    page.keyboard.press("End")
    expect(page.locator("#map-readout")).to_contain_text(texts[-1])
    page.get_by_role("tab", name="curl").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#code")).to_contain_text("from openai import OpenAI")


def test_it_rests_while_hidden(page: Page, witness: Witness) -> None:
    page.evaluate(
        """Object.defineProperty(document, "hidden", {get: () => true, configurable: true});
           document.dispatchEvent(new Event("visibilitychange"))"""
    )
    before = len(witness.asked)
    page.wait_for_timeout(6000)
    assert len(witness.asked) == before
    page.evaluate(
        """Object.defineProperty(document, "hidden", {get: () => false, configurable: true});
           document.dispatchEvent(new Event("visibilitychange"))"""
    )
    page.wait_for_timeout(6500)
    assert len(witness.asked) >= before + 4  # at once, and again
