"""How the pages look: light, dark, narrow; contrast as WCAG AA asks. Screenshots for people."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import SCREENSHOTS, Open, embed

# For each element with text of its own: colour, colour behind it, font size and weight. A canvas
# turns any CSS colour into sRGB bytes; backgrounds are laid over each other from the root up.
COLOURS = """() => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  const paint = (colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own && !node.matches("input, textarea")) continue;
    const box = node.getBoundingClientRect(), style = getComputedStyle(node);
    if (!box.width || !box.height || style.clipPath !== "none" || node.disabled) continue;
    if (node.matches("input[type=radio]") || !node.checkVisibility()) continue;
    const behind = [];
    for (let at = node; at; at = at.parentElement) {
      behind.unshift(getComputedStyle(at).backgroundColor);
    }
    const text = node instanceof SVGElement ? style.fill : style.color;
    found.push([node.tagName + "." + node.className?.toString(), node.textContent.slice(0, 30),
                paint([...behind, text]), paint(behind),
                parseFloat(style.fontSize), +style.fontWeight]);
  }
  return found;
}"""


def luminance(colour: list[int]) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    linear = [
        c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
        for c in colour
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: list[int], b: list[int]) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def faint(page: Page) -> list[Any]:
    """Texts below AA: 4.5, or 3 where they are large."""
    found = page.evaluate(COLOURS)
    assert len(found) > 20
    return [
        (name, text, round(contrast(front, back), 2))
        for name, text, front, back, size, weight in found
        if contrast(front, back) < (3 if size >= 24 or (size >= 18.66 and weight >= 700) else 4.5)
    ]


def test_the_measure_is_right() -> None:
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([119, 119, 119], [255, 255, 255]) == pytest.approx(4.48, abs=0.005)


def shoot(page: Page, name: str) -> Path:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path


def filled(page: Page) -> Page:
    """Everything that can be on it: results, a truncated text, a notice, an error."""
    page.locator("#phase.ok").wait_for()
    page.locator("#long").click()
    embed(page)
    return page


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes_are_readable(open_page: Open, theme: str) -> None:
    page = filled(open_page(color_scheme=theme))
    assert (
        page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        == ({"light": "rgb(247, 248, 250)", "dark": "rgb(13, 15, 19)"}[theme])
    )
    shoot(page, theme)
    page.locator("#query").fill("")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#search-message")).to_be_visible()
    assert faint(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_api_page_is_readable(open_page: Open, theme: str) -> None:
    page = open_page("/docs", color_scheme=theme)
    first = page.locator(".operation", has_text="/embed").first
    first.locator("summary").click()
    first.get_by_role("button", name="Send").click()
    first.locator(".reply").wait_for()
    shoot(page, "docs" if theme == "light" else "docs-dark")
    assert faint(page) == []


def test_the_toggle_changes_and_stays(open_page: Open) -> None:
    page = open_page(color_scheme="light")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Use the dark theme").click()
    dark = page.evaluate(background)
    assert dark != light
    page.goto("/docs")
    assert page.evaluate(background) == dark
    page.get_by_role("button", name="Use the light theme").click()
    assert page.evaluate(background) == light


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_no_sideways_scrolling(open_page: Open, width: int, path: str) -> None:
    page = open_page(path, viewport={"width": width, "height": 740})
    if path == "/":
        filled(page)
    else:
        page.locator(".operation").first.wait_for()
        for summary in page.locator(".operation summary").all():
            summary.click()
        page.locator(".inside").last.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    numbers = page.locator("#heat td span").evaluate_all(
        "all => all.map(one => one.getClientRects().length)"
    )
    assert set(numbers) <= {1}, "a number of the heat map is broken over two lines"
    if width == 360:
        shoot(page, "narrow" if path == "/" else "docs-narrow")


def test_everything_has_a_name(open_page: Open) -> None:
    page = filled(open_page())
    controls = page.locator("button, input, textarea, a, [role=grid], [role=tabpanel]").all()
    assert len(controls) > 15
    for control in controls:
        expect(control).to_have_accessible_name(re.compile(r"\S"))
