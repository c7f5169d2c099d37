"""The persistent compilation cache: a second start loads compiled programs from disk."""

from collections.abc import Callable
import glob
import pathlib
import platform
import re
from typing import Any
import warnings

import jax

from introvae_jax import disk, hashes
from introvae_jax.errors import UserError

SHORTEST = 0.5  # seconds; programs that compile faster are not cached


def enable() -> None:
    """Enables JAX's compilation cache in `disk.cache_dir()`, unless JAX_COMPILATION_CACHE_DIR is set.

    Call it after the processes of a job have joined, because it starts the backend. Programs that cannot be written are
    compiled again at the next start. A damaged entry is deleted when it is read, compiled again and replaced.
    """
    if not isinstance(warnings.showwarning, _DeleteDamaged):
        warnings.showwarning = _DeleteDamaged(warnings.showwarning)
    if _directory() is not None:
        return
    kind = jax.default_backend()
    try:
        place = disk.cache_dir() / "programs" / (f"cpu_{_processor()}" if kind == "cpu" else kind)
    except UserError:  # there is no home directory
        return
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)


def _directory() -> str | None:
    return jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined] # JAX adds its options at run time


class _DeleteDamaged:
    """Shows warnings as before, except JAX's warning about a damaged cache entry, which it deletes.

    JAX compiles a program again if its entry is unreadable, but never overwrites the entry, so it would warn at every
    start. The warning comes before the compilation and has the name of the program, not of the entry: all entries with
    that name are deleted.
    """

    ABOUT = re.compile(r"Error reading persistent compilation cache entry for '([^']+)'")

    def __init__(self, show: Callable[..., None]):
        self._show = show

    def __call__(self, message: Warning | str, *where: Any, **options: Any) -> None:
        damaged = self.ABOUT.match(str(message))
        directory = _directory()
        if not damaged or directory is None:
            self._show(message, *where, **options)
            return
        for entry in pathlib.Path(directory).glob(f"{glob.escape(damaged[1])}-*-cache"):
            entry.unlink(missing_ok=True)


def _processor() -> str:
    """A short hash of this processor's features: another machine with the same home may have other instructions."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        told = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    except OSError:
        told = platform.platform() + platform.processor()
    return hashes.sha256(told.encode())[:12]
