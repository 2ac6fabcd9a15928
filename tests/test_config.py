from __future__ import annotations

from pathlib import Path

import pytest

from cortex_embed import config
from cortex_embed.errors import UsageError


def test_defaults_parse_as_their_own_text() -> None:
    for row in config.rows():
        if row.default in (None, ()):
            continue
        assert row.parse(row.shown) == row.default, row.name


def test_every_setting_is_a_flag_an_env_a_key_and_a_sentence() -> None:
    for row in config.rows():
        assert row.flag == "--" + row.name.replace("_", "-")
        assert row.env == "CORTEX_EMBED_" + row.name.upper()
        assert len(row.help) > 10
        assert row.on


@pytest.mark.parametrize(
    ("source", "expected"),
    [("flag", 9001), ("env", 9002), ("file", 9003), ("default", 8121)],
)
def test_precedence(
    source: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ["flag", "env", "file", "default"]
    present = order[order.index(source) :]
    file = tmp_path / "settings.toml"
    file.write_text("port = 9003\n" if "file" in present else "")
    if "env" in present:
        monkeypatch.setenv("CORTEX_EMBED_PORT", "9002")
    flags = {"port": "9001"} if "flag" in present else {}
    assert config.load(flags, file).port == expected


def test_the_settings_file_can_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "näme with space.toml"
    file.write_text('host = "::1"\naccess_log = true\nmax_body_bytes = "1MiB"\n')
    monkeypatch.setenv("CORTEX_EMBED_CONFIG", str(file))
    settings = config.load({})
    assert (settings.host, settings.access_log, settings.max_body_bytes) == ("::1", True, 2**20)


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("port", "70000", ["--port", "70000", "65535"]),
        ("port", "x", ["--port", "'x'", "whole number"]),
        ("threads", "-1", ["--threads", "-1"]),
        ("max_body_bytes", "huge", ["--max-body-bytes", "huge", "32MiB"]),
        ("grace_period", "soon", ["--grace-period", "soon", "30s"]),
        ("access_log", "maybe", ["--access-log", "maybe", "true or false"]),
        ("on_overlong", "ignore", ["--on-overlong", "ignore", "truncate, error"]),
        ("model", " ", ["--model", "empty"]),
    ],
)
def test_a_wrong_flag_names_itself_the_value_and_what_is_allowed(
    name: str, raw: str, words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        config.load({name: raw})
    assert all(word in caught.value.message for word in words)
    assert caught.value.exit_code == 2


def test_a_wrong_variable_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEX_EMBED_PORT", "eighty")
    with pytest.raises(UsageError, match="CORTEX_EMBED_PORT: 'eighty'"):
        config.load({})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"port = [1]", "single value"),
        (b"prot = 1", "unknown key 'prot'"),
        (b"port = ", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
    ],
)
def test_a_wrong_file_names_itself(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        config.load({}, file)
    assert str(file) in caught.value.message


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        config.load({}, tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("flags", "port"),
    [({}, 8121), ({"sidecar": "true"}, 0), ({"sidecar": "true", "port": "9000"}, 9000)],
)
def test_a_sidecar_takes_a_free_port_unless_told(flags: dict[str, str | None], port: int) -> None:
    assert config.load(flags).port == port


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org"])  # noqa: S104 - refused
def test_a_sidecar_is_for_this_machine_only(host: str) -> None:
    with pytest.raises(UsageError, match="without --sidecar"):
        config.load({"sidecar": "true", "host": host})
    for local in config.LOOPBACK:
        assert config.load({"sidecar": "true", "host": local}).host == local


def test_what_ensure_and_stop_take() -> None:
    by_name = {row.name: row for row in config.rows()}
    assert config.takes("ensure", by_name["threads"])
    assert config.takes("ensure", by_name["runtime_dir"])
    assert not config.takes("ensure", by_name["port"])
    assert config.takes("stop", by_name["model"])
    assert not config.takes("stop", by_name["threads"])
    assert not config.takes("serve", by_name["runtime_dir"])


def test_a_token_comes_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "abc-123")
    assert config.token("SOME_TOKEN") == "abc-123"
    with pytest.raises(UsageError, match="OTHER_TOKEN is not set"):
        config.token("OTHER_TOKEN")


@pytest.mark.parametrize("value", ["", "a b", "a\nb", "ä", "\x7f"])
def test_a_token_that_no_header_carries_is_refused_unquoted(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", value)
    with pytest.raises(UsageError, match="SOME_TOKEN") as caught:
        config.token("SOME_TOKEN")
    assert not value or value not in caught.value.message.replace("SOME_TOKEN", "")


def test_several_models_by_flag_variable_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('model = ["a", "./b,c"]\n')
    assert config.load({}, file).model == ("a", "./b,c")
    monkeypatch.setenv("CORTEX_EMBED_MODEL", "d, e")
    assert config.load({}, file).model == ("d", "e")
    assert config.load({"model": ["f,g", "h"]}, file).model == ("f,g", "h")
    file.write_text('model = "a"\n')
    monkeypatch.delenv("CORTEX_EMBED_MODEL")
    assert config.load({}, file).model == ("a",)


def test_keys_come_from_the_environment_and_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text("of-the-file\n")
    assert config.keys(config.Settings()) == ()
    assert config.keys(config.Settings(api_key_file=file)) == ("of-the-file",)
    monkeypatch.setenv("CORTEX_EMBED_API_KEYS", "one, two")
    assert config.keys(config.Settings()) == ("one", "two")
    assert config.keys(config.Settings(api_key_file=file)) == ("one", "two", "of-the-file")
    monkeypatch.setenv("CORTEX_EMBED_API_KEYS", "")
    with pytest.raises(UsageError, match="CORTEX_EMBED_API_KEYS holds no key"):
        config.keys(config.Settings())


def test_no_flag_takes_a_key() -> None:
    """Flags show in `ps`."""
    assert not [row.name for row in config.rows() if row.name in {"api_key", "api_keys", "token"}]


def test_origins_are_judged_where_they_are_set() -> None:
    settings = config.load({"cors_origins": "https://a.b, http://localhost:3000"})
    assert settings.cors_origins == ("https://a.b", "http://localhost:3000")
    with pytest.raises(UsageError, match=r"--cors-origins: 'https://a\.b/x' must be \* or origins"):
        config.load({"cors_origins": "https://a.b/x"})


def test_what_a_service_starts_takes() -> None:
    taken = {row.name for row in config.rows() if config.takes("service", row)}
    serves = {row.name for row in config.rows() if config.takes("serve", row)}
    assert taken == serves - config.NOT_FOR_A_SERVICE
    assert serves >= config.NOT_FOR_A_SERVICE


def test_settings_without_an_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("threads = 2")
    monkeypatch.setenv("CORTEX_EMBED_PORT", "1")
    monkeypatch.setenv("CORTEX_EMBED_CONFIG", str(file))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert config.load({}, environment=False) == config.Settings()
    assert config.load({}, file, environment=False).threads == 2


def test_what_is_set_here_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CORTEX_EMBED_API_KEYS", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    named = config.set_here()
    assert {"CORTEX_EMBED_API_KEYS", "HF_TOKEN"} <= set(named)
    assert "secret" not in " ".join(named)


def test_the_account_as_windows_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    monkeypatch.delenv("USERDOMAIN", raising=False)
    assert config.account() == "ann"
    monkeypatch.setenv("USERDOMAIN", "BOX")
    assert config.account() == "BOX\\ann"
