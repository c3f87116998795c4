"""`[secrets]`: where keys come from, and all that does not fit told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError, load


def read(folder: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    file = folder / "orgate.toml"
    file.write_text(text)
    return load(file, environment or {})


def test_mounted_files_need_their_folder(tmp_path: Path) -> None:
    text = '[secrets]\nupstream_keys = "mounted-files"\nmounted = "provided"\n'
    with pytest.raises(SettingsError, match=r"secrets\.mounted.*provided is no folder"):
        read(tmp_path, text)
    (tmp_path / "provided").mkdir()
    settings = read(tmp_path, text)
    assert settings.path(settings.secrets.mounted) == tmp_path / "provided"


def test_faults_of_keys_and_of_what_opens_them_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, '[secrets]\nupstream_keys = "mounted-files"\nmaster_key = "passphrase:"\n')
    assert [key for key, _, _ in caught.value.faults] == ["secrets.mounted", "secrets.master_key"]


def test_keys_in_the_environment_are_no_settings(tmp_path: Path) -> None:
    settings = read(tmp_path, '[secrets]\nupstream_keys = "environment"\n', {"ORGATE_KEY_ACME__OPENAI": "sk-1"})
    assert "sk-1" not in repr(settings)
    with pytest.raises(SettingsError, match="ORGATE_KEYS__OPENAI"):
        read(tmp_path, "", {"ORGATE_KEYS__OPENAI": "sk-1"})
