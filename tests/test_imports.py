"""Imports go down: the contracts of pyproject.toml."""

import pathlib

from importlinter import cli

ROOT = pathlib.Path(__file__).parent.parent


def test_imports_go_down(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    status = cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert status == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out
