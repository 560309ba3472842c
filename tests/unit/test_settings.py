"""Settings: each read from the environment, each in the table, and what is wrong said in a line."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from click.testing import CliRunner
from pydantic import AliasChoices, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from jobs.settings import JobSettings
from quartapp.cli import main
from quartapp.settings import SECRET_FILE, SettingsError, WebSettings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "settings.md"
HEADING = "| Environment | Default | Meaning |"
UNSET = "*unset*"

FIELDS = WebSettings.model_fields
PLATFORM_NAMES = {
    "database_url": "DATABASE_URL",
    "database_url_direct": "DATABASE_URL_DIRECT",
    "host": "HOST",
    "port": "PORT",
    "secret_key": "SECRET_KEY",
    "public_url": "PUBLIC_URL",
}
KEY = "a key of more than sixteen letters"
DATABASE = "postgresql://somebody:hidden@127.0.0.1:1/nowhere"
NOBODY = "00000000-0000-4000-8000-000000000000"

# Where a value of the field's type alone would not do.
SAMPLES = {
    "openai_base_url": "http://localhost:8080/v1",
    "audio_store": "s3://recordings/here",
    "public_url": "https://transcripts.example.org",
    "data_dir": "/var/lib/transcripts",
    "ticket_duration_s": "30",
    "session_retention_s": "86400",
    "upkeep_cron": "0 3 * * *",
    "cors_origins": "https://app.example.org,http://localhost:5173",
}


def environment_name(field: str) -> str:
    return PLATFORM_NAMES.get(field, f"QUARTAPP_{field.upper()}")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests."""
    for name in os.environ:
        upper = name.upper()
        if upper.startswith(("QUARTAPP_", "RENDER")) or upper in {*PLATFORM_NAMES.values(), "DYNO"}:
            monkeypatch.delenv(name)


def plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def sample(name: str, field: FieldInfo) -> str:
    """A value other than the default, as the environment has it."""
    if name in SAMPLES:
        return SAMPLES[name]
    if get_origin(field.annotation) is Literal:
        return str(next(value for value in get_args(field.annotation) if value != field.default))
    if field.annotation in {int, float}:
        return str(field.get_default() + 1)
    return "postgresql://elsewhere/transcripts"


def table() -> Iterator[tuple[list[str], str, str]]:
    """(environment names, default, meaning) of each row."""
    lines = iter(PAGE.read_text(encoding="utf-8").splitlines())
    assert HEADING in lines
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        names, default, meaning = (cell.strip() for cell in line.strip("|").split("|"))
        yield [name.strip("`") for name in names.split(" or ")], default, meaning


ROWS = {names[0]: (names, default, meaning) for names, default, meaning in table()}


# The table --------------------------------------------------------------------------------------


def test_every_setting_is_in_the_table_and_no_other() -> None:
    assert len(list(table())) == len(ROWS)
    assert set(ROWS) == {environment_name(name) for name in FIELDS}


@pytest.mark.parametrize("name", FIELDS)
def test_the_table_has_the_default_of_the_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, default, _ = ROWS[environment_name(name)]
    if default == UNSET:
        assert FIELDS[name].default in {None, ""}
        return
    monkeypatch.setenv(environment_name(name), default.strip("`"))
    assert getattr(WebSettings(), name) == FIELDS[name].get_default()


@pytest.mark.parametrize("name", FIELDS)
def test_the_table_has_the_meaning_of_the_code(name: str) -> None:
    names, _, meaning = ROWS[environment_name(name)]
    assert FIELDS[name].description
    assert meaning.startswith(str(FIELDS[name].description))
    assert names == (["PUBLIC_URL", "RENDER_EXTERNAL_URL"] if name == "public_url" else names[:1])


def document(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "document_settings.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_page_is_what_its_script_writes() -> None:
    checked = document("--check")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_script_notices_and_mends_an_old_table(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs").mkdir()
    script = tmp_path / "scripts" / "document_settings.py"
    script.write_text((ROOT / "scripts" / "document_settings.py").read_text())
    page = tmp_path / "docs" / "settings.md"
    page.write_text(PAGE.read_text().replace("| `8000` |", "| `8080` |"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(script), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    assert run("--check").returncode == 1
    assert "out of date" in run("--check").stdout
    assert run().returncode == 0
    assert page.read_text() == PAGE.read_text()


# The environment --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIELDS)
def test_each_setting_is_read_from_its_environment_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = FIELDS[name]
    given = sample(name, field)
    monkeypatch.setenv(environment_name(name), given)
    value = plain(getattr(WebSettings(), name))
    assert value != plain(field.get_default())
    assert str(value) == given or float(value) == float(given)
    if name in JobSettings.model_fields:
        assert plain(getattr(JobSettings(), name)) == value


@pytest.mark.parametrize("name", FIELDS)
def test_an_empty_value_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment_name(name), "")
    assert getattr(WebSettings(), name) == FIELDS[name].get_default()


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValidationError):
        WebSettings().port = 1  # type: ignore[misc]


def test_a_platform_name_has_no_prefix() -> None:
    aliased = {name for name, field in FIELDS.items() if is_alias(field)}
    assert aliased == set(PLATFORM_NAMES)


def is_alias(field: FieldInfo) -> bool:
    return isinstance(field.validation_alias, AliasChoices)


# What is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "http", "integer"),
        ("PORT", "65536", "65535"),
        ("PORT", "-1", "0"),
        ("QUARTAPP_ROLE", "worker", "'all' or 'web'"),
        ("QUARTAPP_REGISTRATION", "maybe", "'open' or 'closed'"),
        ("QUARTAPP_ENGINE", "nonsense", "'auto'"),
        ("QUARTAPP_JOB_SLOTS", "many", "integer"),
        ("QUARTAPP_JOB_SLOTS", "33", "32"),
        ("QUARTAPP_DATABASE_POOL_SIZE", "1", "2"),
        ("QUARTAPP_HEARTBEAT_S", "0", "greater than 0"),
        ("QUARTAPP_HEARTBEAT_S", "soon", "number"),
        ("QUARTAPP_HEARTBEAT_S", "inf", "finite"),
        ("QUARTAPP_HEARTBEAT_S", "nan", "finite"),
        ("QUARTAPP_AUDIO_STORE", "nonsense", "s3://bucket"),
        ("QUARTAPP_AUDIO_STORE", "ftp://somewhere", "s3://bucket"),
        ("QUARTAPP_AUDIO_STORE", "s3://", "s3://bucket"),
        ("QUARTAPP_AUDIO_STORE", "file://", "file:///directory"),
        ("QUARTAPP_TICKET_DURATION_S", "0", "1"),
        ("QUARTAPP_TICKET_DURATION_S", "61", "60"),
        ("QUARTAPP_TICKET_LIMIT", "0", "1"),
        ("QUARTAPP_AUDIO_RETENTION", "-1", "0"),
        ("QUARTAPP_AUDIO_RETENTION", "1e12", "3153600000"),
        ("QUARTAPP_STATUS_RETENTION_S", "90", "86400"),
        ("QUARTAPP_SESSION_RETENTION_S", "0", "86400"),
        ("QUARTAPP_UPKEEP_CRON", "daily", "*/10 * * * *"),
        ("QUARTAPP_UPKEEP_CRON", "61 * * * *", "*/10 * * * *"),
        ("QUARTAPP_CORS_ORIGINS", "app.example.org", "scheme://host"),
        ("QUARTAPP_CORS_ORIGINS", "https://app.example.org/", "without a path"),
        ("QUARTAPP_CORS_ORIGINS", "https://app.example.org/page", "without a path"),
        ("QUARTAPP_CORS_ORIGINS", "https://app.example.org?a=b", "without a path"),
        ("QUARTAPP_CORS_ORIGINS", "https://somebody@app.example.org", "scheme://host"),
        ("QUARTAPP_OPENAI_BASE_URL", "api.openai.com", "https://host/path"),
        ("QUARTAPP_OPENAI_BASE_URL", "ftp://host/v1", "https://host/path"),
        ("QUARTAPP_OPENAI_BASE_URL", "https:///v1", "https://host/path"),
        ("QUARTAPP_OPENAI_BASE_URL", "https://user:pass@host/v1", "no password"),
        ("QUARTAPP_OPENAI_BASE_URL", "https://host/v1?key=1", "query"),
        ("QUARTAPP_OPENAI_API_KEY", "sk-12 34", "no key has"),
        ("QUARTAPP_OPENAI_API_KEY", "sk-12\n", "no key has"),
        ("QUARTAPP_OPENAI_API_KEY", "schlüssel", "no key has"),
        ("QUARTAPP_CORS_ORIGINS", "https://*.example.org", "scheme://host"),
        ("QUARTAPP_CORS_ORIGINS", "https://a.example b.example", "scheme://host"),
        ("QUARTAPP_CORS_ORIGINS", "https://", "scheme://host"),
        ("QUARTAPP_CORS_ORIGINS", "https://a.example:port", "scheme://host"),
        ("QUARTAPP_CORS_ORIGINS", "null", "scheme://host"),
        ("QUARTAPP_CORS_ORIGINS", "https://a.example,null", "scheme://host"),
        ("QUARTAPP_CORS_ORIGINS", "*,https://a.example", "stands alone"),
        ("QUARTAPP_CORS_ORIGINS", "*,*", "stands alone"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable(name: str, value: str, said: str) -> None:
    done = CliRunner().invoke(main, ["watch", NOBODY], env={name: value})
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"Error: wrong setting: {name}: ")
    assert said in done.stderr
    assert "KEY" not in name or value.strip() not in done.stderr


def test_all_bad_values_are_told_at_once() -> None:
    bad = {"PORT": "x", "QUARTAPP_JOB_SLOTS": "y"}
    done = CliRunner().invoke(main, ["watch", NOBODY], env=bad)
    assert done.exit_code == 1
    assert all(name in done.stderr for name in bad)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("value", ["postgres", "file:///srv/audio", "gs://bucket/in", "az://box"])
def test_every_kind_of_audio_store_is_taken(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTAPP_AUDIO_STORE", value)
    assert JobSettings().audio_store == value


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("https://app.example.org", {"https://app.example.org"}),
        (" https://A.example , http://[::1]:81,", {"https://a.example", "http://[::1]:81"}),
        ("https://a.example,https://A.EXAMPLE:443", {"https://a.example"}),
        ("https://a.example:80,http://a.example:80", {"https://a.example:80", "http://a.example"}),
        ("capacitor://localhost", {"capacitor://localhost"}),
        ("*", set()),
        (" , ", set()),
    ],
)
def test_origins_are_named_as_browsers_name_them(
    value: str, origins: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUARTAPP_CORS_ORIGINS", value)
    assert WebSettings().named_origins == origins
    assert WebSettings().any_origin is (value == "*")


# The secret -------------------------------------------------------------------------------------


def refusal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    """What `quartapp serve` says before it ends with exit code 1."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-m", "quartapp", "serve", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_with_a_database_a_missing_secret_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = refusal(monkeypatch, DATABASE_URL=DATABASE)
    assert said.startswith("Error: SECRET_KEY is not set.")
    assert "token_urlsafe" in said


def test_a_short_secret_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, DATABASE_URL=DATABASE, SECRET_KEY="opensesame")
    assert said.startswith("Error: SECRET_KEY is too short: at least 16 characters.")
    assert "opensesame" not in said


def test_a_short_secret_is_refused_in_development_too() -> None:
    with pytest.raises(SettingsError, match="too short"):
        WebSettings(secret_key=SecretStr("opensesame")).signing_key()


def test_a_secret_that_is_set_is_used_and_never_shown(tmp_path: Path) -> None:
    settings = WebSettings(secret_key=SecretStr(KEY), data_dir=tmp_path)
    assert settings.signing_key() == KEY
    assert KEY not in repr(settings)
    assert list(tmp_path.iterdir()) == []


def test_in_development_a_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    data_dir = tmp_path / "new"
    key = WebSettings(data_dir=data_dir).signing_key()
    assert len(key) >= 48
    assert stat.S_IMODE((data_dir / SECRET_FILE).stat().st_mode) == 0o600
    assert WebSettings(data_dir=data_dir).signing_key() == key
    assert [path.name for path in data_dir.iterdir()] == [SECRET_FILE]
    assert WebSettings(data_dir=tmp_path / "other").signing_key() != key


def test_processes_that_start_together_have_one_secret(tmp_path: Path) -> None:
    settings, together = WebSettings(data_dir=tmp_path), threading.Barrier(8)
    keys: list[str] = []

    def make() -> None:
        together.wait()
        keys.append(settings.signing_key())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_an_empty_secret_file_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / SECRET_FILE).touch()
    with pytest.raises(SettingsError, match="Remove it"):
        WebSettings(data_dir=tmp_path).signing_key()


# The platform -----------------------------------------------------------------------------------


def test_without_a_port_only_this_machine_is_served() -> None:
    assert WebSettings().bind_host == "127.0.0.1"
    assert WebSettings().port == 8000


def test_a_port_of_the_platform_is_served_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "10000")
    assert WebSettings().bind_host == "0.0.0.0"  # noqa: S104 - compared, not bound
    assert WebSettings().port == 10000


def test_a_host_that_is_named_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "10000")
    monkeypatch.setenv("HOST", "::1")
    assert WebSettings().bind_host == "::1"
    assert WebSettings(host="127.0.0.2").bind_host == "127.0.0.2"


def test_the_address_of_render_is_used_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RENDER_EXTERNAL_URL", "https://quartapp.onrender.com/")
    assert WebSettings().public_url == "https://quartapp.onrender.com"
    monkeypatch.setenv("PUBLIC_URL", "")
    assert WebSettings().public_url == "https://quartapp.onrender.com"
    monkeypatch.setenv("PUBLIC_URL", "http://transcripts.example.org")
    assert WebSettings().public_url == "http://transcripts.example.org"


@pytest.mark.parametrize(
    ("url", "secure"),
    [("https://example.org", True), ("http://example.org", False), ("", False)],
)
def test_https_makes_cookies_secure(url: str, secure: bool) -> None:
    assert WebSettings(public_url=url).secure_cookies is secure


@pytest.mark.parametrize(("name", "hops"), [("RENDER", 1), ("DYNO", 1), ("HOME", 0)])
def test_the_proxy_of_a_known_platform_is_believed(
    name: str, hops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "true")
    assert WebSettings().proxy_hops == hops
    monkeypatch.setenv("QUARTAPP_TRUSTED_PROXIES", "2")
    assert WebSettings().proxy_hops == 2


def test_only_a_direct_address_of_its_own_means_a_pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", DATABASE)
    assert not JobSettings().pooled
    monkeypatch.setenv("DATABASE_URL_DIRECT", DATABASE)
    assert not JobSettings().pooled
    monkeypatch.setenv("DATABASE_URL_DIRECT", "postgresql://127.0.0.1:2/nowhere")
    assert JobSettings().pooled
