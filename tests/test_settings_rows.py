"""A row of the table says how its setting is given, whoever asks."""

from __future__ import annotations

from dataclasses import dataclass

from cortex_embed.parsers import boolean, integer, names
from cortex_embed.settings_rows import rows_of, setting


@dataclass(frozen=True)
class Table:
    max_texts: int = setting(8, integer(1, 9), "N", "texts", on=("serve", "embed"))
    is_loud: bool = setting(False, boolean, "", "loud", shown="no")
    model: tuple[str, ...] = setting((), names, "NAME", "models", shown="the default")


def test_everything_follows_from_the_field() -> None:
    number, switch, several = rows_of(Table)
    assert (number.name, number.flag) == ("max_texts", "--max-texts")
    assert number.env == "CORTEX_EMBED_MAX_TEXTS"
    assert (number.default, number.shown, number.parse("9")) == (8, "8", 9)
    assert (number.metavar, number.help, number.on) == ("N", "texts", ("serve", "embed"))
    assert (number.is_switch, number.is_list) == (False, False)
    assert (switch.is_switch, switch.is_list, switch.shown) == (True, False, "no")
    assert (several.is_switch, several.is_list, several.on) == (False, True, ("serve",))
    assert several.shown == "the default"
