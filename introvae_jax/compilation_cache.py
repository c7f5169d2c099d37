"""Compiled programs stay on disk, so that a second start does not compile again."""

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

SHORTEST = 0.5  # seconds of compiling below which it is done again


def enable() -> None:
    """Lets JAX keep what it compiles in `disk.cache_dir()`, unless JAX_COMPILATION_CACHE_DIR names a place, or none.

    To be called once the processes of a job are joined, for it starts the backend. What cannot be written is
    compiled again the next time; a damaged entry is deleted when it is read, compiled again and replaced.
    """
    if not isinstance(warnings.showwarning, _DeleteDamaged):
        warnings.showwarning = _DeleteDamaged(warnings.showwarning)
    if _directory() is not None:
        return
    kind = jax.default_backend()
    try:
        place = disk.cache_dir() / "programs" / (f"cpu_{_processor()}" if kind == "cpu" else kind)
    except UserError:  # no home
        return
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)


def _directory() -> str | None:
    return jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined] # JAX adds its options at run time


class _DeleteDamaged:
    """Shows warnings as before, except JAX's about a damaged cache entry: that is deleted instead.

    JAX compiles again what it cannot read, but never writes over an entry, so it would warn at every start. It warns
    before it compiles, and names the program but not the entry: all of that name go.
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
    """What this processor can do, as a short hash: another one may know other instructions, and share a home."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        told = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    except OSError:
        told = platform.platform() + platform.processor()
    return hashes.sha256(told.encode())[:12]
