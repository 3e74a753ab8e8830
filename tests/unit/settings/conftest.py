"""A configuration written for a test, and what is wrong with it."""

from pathlib import Path

import pytest

from mta import config
from mta.config import Config, ConfigError
from mta.testing.config_files import Load, Problems


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(text: str, **files: str) -> Config:
        (tmp_path / "mta.toml").write_text(text)
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_toml", ".toml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            if path.suffix == ".pem":
                path.chmod(0o600)
        return config.load(tmp_path / "mta.toml")

    return write_and_load


@pytest.fixture
def problems(tmp_path: Path, load: Load) -> Problems:
    def write_and_fail(text: str, **files: str) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            load(text, **files)
        return [str(problem).replace(f"{tmp_path}/", "") for problem in raised.value.problems]

    return write_and_fail
