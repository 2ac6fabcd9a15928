"""With a token: the pages are readable, their requests ask for the key, and it stays in the tab."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Witness, embed
from tests.e2e.process import Client, Served, command

KEY = "key-of-the-browser-test"
REFUSED = "401 (Unauthorized)"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server that asks for a token, and a client that knows it."""
    home = tmp_path_factory.mktemp("home")
    # `environment` keeps what a process needs and nothing else, so the name goes by `env`.
    given = ["env", f"TOKEN_OF_THE_TEST={KEY}", *command()]
    served = Served([*given, "serve", "--port", "0", "--token-env", "TOKEN_OF_THE_TEST"], home)
    try:
        yield Client(served.ready().port, {"Authorization": f"Bearer {KEY}"})
    finally:
        served.close()
    assert KEY not in served.stderr


def give(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.keyboard.press("Enter")


def test_the_page_asks_until_the_key_is_right(
    open_page: Open, locked: Client, witness: Witness
) -> None:
    witness.allowed = (REFUSED,)
    page = open_page(at=locked)
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_contain_text("asks for an API key")
    assert page.get_by_label("Key", exact=True).get_attribute("type") == "password"
    give(page, "wrong")
    expect(dialog).to_contain_text("refused that key")
    give(page, KEY)
    page.locator("#phase.ok").wait_for()
    assert dialog.count() == 0
    witness.said.clear()
    embed(page)
    expect(page.locator("#code")).to_contain_text("Authorization: Bearer YOUR_API_KEY")
    assert KEY not in page.content()
    page.reload()  # the tab remembers
    page.locator("#phase.ok").wait_for()
    assert witness.said == []
    assert page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
    assert not any(KEY in url for url in witness.asked)


def test_who_has_none_can_go_away_and_come_back(
    open_page: Open, locked: Client, witness: Witness
) -> None:
    witness.allowed = (REFUSED,)
    page = open_page(at=locked)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#phase")).to_have_text("API key needed")
    asked = len(witness.asked)
    page.wait_for_timeout(6000)
    assert len(witness.asked) == asked, "it goes on asking what was refused"
    page.locator("#embed").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#message")).to_contain_text("token")
    page.locator("#embed").click()
    give(page, KEY)
    page.locator("#ranking li").first.wait_for()
    page.locator("#phase.ok").wait_for()


def test_the_api_page_asks_as_well(open_page: Open, locked: Client, witness: Witness) -> None:
    witness.allowed = (REFUSED,)
    page = open_page("/docs", at=locked)
    give(page, KEY)
    page.locator(".operation", has_text="/model_info").locator("summary").click()
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".inside [role=status]")).to_contain_text("200")
    expect(page.locator("pre code")).to_contain_text("Bearer YOUR_API_KEY")
    assert KEY not in page.content()
