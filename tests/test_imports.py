"""What the code layout promises: the contracts of pyproject.toml, and no objective's name outside objectives/."""

import ast
import pathlib
import subprocess
import sys

from introvae_jax.objectives import OBJECTIVES

ROOT = pathlib.Path(__file__).parent.parent


def test_imports_go_down():
    """In a process of its own: the linter replaces sys.stdout."""
    script = "import sys\nfrom importlinter import cli\nsys.exit(cli.lint_imports(no_cache=True, no_logo=True))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_objectives_ask_for_an_objective_s_name():
    """Elsewhere `objectives.kind(settings)` has what differs."""
    found = []
    for path in sorted((ROOT / "introvae_jax").rglob("*.py")):
        if path.parent.name != "objectives":
            compared = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Compare))
            constants = (leaf for node in compared for leaf in ast.walk(node) if isinstance(leaf, ast.Constant))
            found += [f"{path}:{leaf.lineno}" for leaf in constants if leaf.value in OBJECTIVES]
    assert found == []
