"""The API page shows every operation of /openapi.json, and sends what it shows."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Witness
from tests.e2e.process import Client


@pytest.fixture
def docs(open_page: Open) -> Page:
    page = open_page("/docs")
    page.locator(".operation").first.wait_for()
    return page


def document(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("fetch('/openapi.json').then(reply => reply.json())")
    return found


def operations(page: Page) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, item in document(page)["paths"].items()
        for method, operation in item.items()
        if method in {"get", "post", "put", "patch", "delete"}
    ]


def block(page: Page, method: str, path: str) -> Any:
    """The block of an operation, opened."""
    exact = page.locator(".operation").filter(
        has=page.locator("summary", has=page.get_by_text(path, exact=True)).filter(
            has=page.get_by_text(method.upper(), exact=True)
        )
    )
    exact.locator("summary").click()
    exact.locator(".inside").wait_for()
    return exact


def test_every_operation_is_there_by_tag(docs: Page) -> None:
    expected = {
        (operation["tags"][0], method.upper(), path, operation["summary"])
        for method, path, operation in operations(docs)
    }
    shown = docs.locator(".operations section").evaluate_all(
        """all => all.flatMap(one => [...one.querySelectorAll("summary")].map(s =>
            [one.querySelector("h2").textContent, ...[...s.children].map(c => c.textContent)]))"""
    )
    assert {tuple(row) for row in shown} == expected
    assert len(shown) == len(expected) > 2
    assert docs.locator("#toc a").count() == len({tag for tag, *_ in expected})


def test_every_operation_opens(docs: Page) -> None:
    for summary in docs.locator(".operation summary").all():
        summary.click()
    count = docs.locator(".operation").count()
    expect(docs.locator(".operation .inside")).to_have_count(count)
    statuses = docs.locator("table[aria-label=Responses] tbody th").all_text_contents()
    assert len(statuses) == sum(len(one["responses"]) for *_, one in operations(docs))
    assert "undefined" not in docs.locator("main").inner_text()


def test_fields_of_a_request(docs: Page) -> None:
    fields = block(docs, "post", "/embed").locator("table.fields").first
    texts = fields.locator("tbody tr", has=docs.get_by_role("rowheader", name="texts"))
    expect(texts).to_contain_text("required")
    expect(texts).to_contain_text("string[]")
    expect(texts).to_contain_text("a list of strings")
    mode = fields.locator("tbody tr", has=docs.get_by_role("rowheader", name="mode", exact=True))
    expect(mode).to_contain_text('"query"')
    expect(mode).not_to_contain_text("required")


def test_send_works_and_so_does_the_curl_line(docs: Page, server: Client) -> None:
    embed = block(docs, "post", "/embed")
    body = embed.locator("textarea")
    json.loads(body.input_value())
    body.fill('{"texts": ["it\'s edited"], "dimensions": 3}')
    embed.get_by_role("button", name="Send").click()
    expect(embed.locator("[role=status]")).to_contain_text("200")
    (vector,) = json.loads(embed.locator(".reply").inner_text())["embeddings"]
    assert [vector] == server.embed(["it's edited"], dimensions=3)
    curl = embed.locator("pre code").inner_text()
    done = subprocess.run(
        ["bash", "-c", curl], capture_output=True, text=True, timeout=30, check=True
    )
    assert json.loads(done.stdout)["embeddings"] == [vector]
    assert f":{server.port}/embed" in curl


def test_long_replies_are_shortened_and_say_so(docs: Page) -> None:
    embed = block(docs, "post", "/embed")
    embed.locator("textarea").fill(json.dumps({"texts": ["a", "b", "c", "d"]}))
    embed.locator("textarea").press("Control+Enter")
    expect(embed.locator(".reply")).to_contain_text("more characters, not shown")


def test_a_parameter_goes_into_the_path(docs: Page, server: Client) -> None:
    one = block(docs, "get", "/v1/models/{id}")
    repo = server.get("/").json["model"]
    one.get_by_label("id").fill(repo)
    one.get_by_role("button", name="Send").click()
    expect(one.locator("[role=status]")).to_contain_text("200")
    expect(one.locator(".reply")).to_contain_text('"object": "model"')
    expect(one.locator("pre code")).to_contain_text(f"/v1/models/{repo}'")


def test_an_error_is_shown_as_it_comes(open_page: Open, witness: Witness) -> None:
    witness.allowed = ("400 (Bad Request)",)
    page = open_page("/docs")
    embed = block(page, "post", "/embed")
    embed.locator("textarea").fill('{"texts": []}')
    embed.get_by_role("button", name="Send").click()
    expect(embed.locator("[role=status]")).to_contain_text("400")
    expect(embed.locator("[role=status]")).to_have_class("error")
    expect(embed.locator(".reply")).to_contain_text("texts is empty")


def test_a_link_opens_its_operation(open_page: Open) -> None:
    page = open_page("/docs")
    page.locator(".operation").first.wait_for()
    name = page.locator(".operation").last.get_attribute("id")
    page.goto(f"/docs#{name}")
    page.reload()
    expect(page.locator(".operation[open]")).to_have_attribute("id", name or "")
