"""What the documentation promises about commands, options and pictures."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path

import platformdirs
import pytest

from napari_restore.restoration.plan import Options

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
COMMANDS = (
    "deblur",
    "dehaze",
    "motion-deblur",
    "denoise",
    "psf",
    "evaluate",
    "check",
    "train",
    "models",
    "gui",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_documented(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (script,) = entry_points(group="console_scripts", name="napari-restore")
    with pytest.raises(SystemExit):
        script.load()([command, "--help"])
    usage = capsys.readouterr().out.partition("Formats:")[0]
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", usage))
    text = (DOCS / "command-line.md").read_text(encoding="utf-8")
    missing = {option for option in options - {"--help"} if f"`{option}`" not in text}
    assert not missing


def test_every_option_of_the_library_is_documented() -> None:
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    names = {field.name for field in fields(Options)} - {"task"}
    assert not {name for name in names if f"| `{name}` |" not in text}


def test_links_within_the_repository_lead_somewhere() -> None:
    broken = []
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if not re.match(r"https?:|mailto:|#", target):
                path = page.parent / target.partition("#")[0]
                broken += [] if path.exists() else [f"{page.relative_to(ROOT)}: {target}"]
    assert not broken


@pytest.mark.parametrize(
    "name", ["deblur", "dehaze", "motion-deblur", "first-open", "first-preview"]
)
def test_screenshots_are_small(name: str) -> None:
    assert 10_000 < (DOCS / "images" / f"{name}.png").stat().st_size <= 300_000


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such variables")
def test_tests_leave_the_settings_of_their_user_alone(home: Path) -> None:
    for where in (platformdirs.user_config_path, platformdirs.user_cache_path):
        assert where("napari-restore").is_relative_to(home)
