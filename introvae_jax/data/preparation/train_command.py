"""The command that trains on a prepared set."""

import pathlib
import shlex

from introvae_jax.data.arrayrecord import data_dir

SIZES = tuple(2**k for k in range(4, 11))  # image sizes that the networks support
# Configs that read a data set without further flags, by data set and size.
_EXPERIMENTS = {
    **{("avatars", size): f"avatars.py:{size}" for size in SIZES},
    **{("celeb_a", size): f"celeba.py:{size}" for size in (64, 128)},
    **{("celeb_a_hq", size): f"celebahq.py:{size}" for size in (128, 256, 1024)},
    **{("ffhq", size): f"ffhq.py:{size}" for size in (128, 256, 1024)},
    ("cifar10", 32): "cifar10.py",
    ("lsun_bedroom", 256): "lsun.py:bedroom",
    ("lsun_church", 256): "lsun.py:church",
}


def nearest(size: int) -> int:
    """The supported size nearest to `size`; in a tie, the smaller one."""
    return min(SIZES, key=lambda allowed: abs(allowed - size))


def untrainable(size: int) -> str:
    """The error message for an unsupported `size`; "" if it is supported."""
    if size in SIZES:
        return ""
    return (
        f"{size}x{size} images cannot be trained on: sizes are powers of two from {SIZES[0]} to {SIZES[-1]}; the "
        f"nearest is --resolution={nearest(size)}"
    )


def command(directory: pathlib.Path, name: str, size: int, channels: int) -> str:
    """The shell command that trains on the set `name` of `size` and `channels` in `directory`."""
    experiment = _EXPERIMENTS.get((name, size))
    words = ["python", "-m", "introvae_jax.main", f"--config=configs/{experiment or 'folder.py'}"]
    if experiment is None:
        stages = size.bit_length() - 3  # down to 4 x 4
        widths = tuple(min(32 * 2**k, 512) for k in range(stages))
        words += [
            "--config.data.source=tfds", f"--config.data.name={name}/{size}", f"--config.data.size={size}",
            f"--config.model.channels={widths}", f"--workdir=runs/{name}_{size}",
        ]  # fmt: skip
    if channels != 3:
        words.append(f"--config.data.channels={channels}")
    root = directory.absolute().parents[2]
    if root != data_dir("").absolute():
        words.append(f"--config.data.path={root}")
    return shlex.join(words)
