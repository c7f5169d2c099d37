"""Weights, images and feature vectors from seeds alone, so that no file of them is needed."""

from collections.abc import Iterable, Iterator, Mapping
import os
import struct
import zipfile

import numpy as np

# Names, channels out and in, height, width of the 94 convolutions, in the file's order.
_STEM = """
Conv2d_1a_3x3 32 3 3 3 / Conv2d_2a_3x3 32 32 3 3 / Conv2d_2b_3x3 64 32 3 3 / Conv2d_3b_1x1 80 64 1 1 /
Conv2d_4a_3x3 192 80 3 3
"""
_MIXED_5 = """
branch1x1 64 {i} 1 1 / branch5x5_1 48 {i} 1 1 / branch5x5_2 64 48 5 5 / branch3x3dbl_1 64 {i} 1 1 /
branch3x3dbl_2 96 64 3 3 / branch3x3dbl_3 96 96 3 3 / branch_pool {p} {i} 1 1
"""
_MIXED_6A = "branch3x3 384 288 3 3 / branch3x3dbl_1 64 288 1 1 / branch3x3dbl_2 96 64 3 3 / branch3x3dbl_3 96 96 3 3"
_MIXED_6 = """
branch1x1 192 768 1 1 / branch7x7_1 {c} 768 1 1 / branch7x7_2 {c} {c} 1 7 / branch7x7_3 192 {c} 7 1 /
branch7x7dbl_1 {c} 768 1 1 / branch7x7dbl_2 {c} {c} 7 1 / branch7x7dbl_3 {c} {c} 1 7 / branch7x7dbl_4 {c} {c} 7 1 /
branch7x7dbl_5 192 {c} 1 7 / branch_pool 192 768 1 1
"""
_MIXED_7A = """
branch3x3_1 192 768 1 1 / branch3x3_2 320 192 3 3 / branch7x7x3_1 192 768 1 1 / branch7x7x3_2 192 192 1 7 /
branch7x7x3_3 192 192 7 1 / branch7x7x3_4 192 192 3 3
"""
_MIXED_7 = """
branch1x1 320 {i} 1 1 / branch3x3_1 384 {i} 1 1 / branch3x3_2a 384 384 1 3 / branch3x3_2b 384 384 3 1 /
branch3x3dbl_1 448 {i} 1 1 / branch3x3dbl_2 384 448 3 3 / branch3x3dbl_3a 384 384 1 3 / branch3x3dbl_3b 384 384 3 1 /
branch_pool 192 {i} 1 1
"""
_BLOCKS = {
    "": _STEM,
    "Mixed_5b.": _MIXED_5.format(i=192, p=32),
    "Mixed_5c.": _MIXED_5.format(i=256, p=64),
    "Mixed_5d.": _MIXED_5.format(i=288, p=64),
    "Mixed_6a.": _MIXED_6A,
    **{f"Mixed_6{letter}.": _MIXED_6.format(c=c) for letter, c in zip("bcde", (128, 160, 160, 192), strict=True)},
    "Mixed_7a.": _MIXED_7A,
    "Mixed_7b.": _MIXED_7.format(i=1280),
    "Mixed_7c.": _MIXED_7.format(i=2048),
}
CLASSES = 1008


def convolutions() -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Names and weight shapes [out, in, H, W]."""
    for block, table in _BLOCKS.items():
        for line in table.split("/"):
            name, *numbers = line.split()
            yield block + name, tuple(map(int, numbers))


def state(seed: int = 0) -> dict[str, np.ndarray]:
    """All 566 entries of the file of FID's Inception-v3, names and shapes as there; values random.

    He's variance for the kernels keeps activations at one scale through 20 layers; BatchNorm's statistics and affine
    parameters vary by channel, so that no part of it could be left out unseen.
    """
    rng = np.random.default_rng(seed)
    entries = {}
    for name, shape in convolutions():
        channels = shape[0]
        deviation = np.sqrt(2 / np.prod(shape[1:]))
        entries[f"{name}.conv.weight"] = rng.normal(0, deviation, shape)
        entries[f"{name}.bn.weight"] = rng.uniform(0.8, 1.2, channels)
        entries[f"{name}.bn.bias"] = rng.normal(0, 0.1, channels)
        entries[f"{name}.bn.running_mean"] = rng.normal(0, 0.1, channels)
        entries[f"{name}.bn.running_var"] = rng.uniform(0.5, 1.5, channels)
        entries[f"{name}.bn.num_batches_tracked"] = np.int64(1)
    entries["fc.weight"] = rng.normal(0, 0.02, (CLASSES, 2048))
    entries["fc.bias"] = rng.normal(0, 0.02, CLASSES)
    return {k: np.float32(v) if np.ndim(v) else np.asarray(v) for k, v in entries.items()}


def save(path: str | os.PathLike, entries: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as torch.save writes a state dict, without torch: a zip of one pickle and the numbers."""
    pickled = [b"\x80\x02}("]
    storages = {np.dtype(np.float32): b"FloatStorage", np.dtype(np.int64): b"LongStorage"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, (name, values) in enumerate(entries.items()):
            strides = [s // values.itemsize for s in values.strides]
            storage = (
                b"ctorch\n" + storages[values.dtype] + b"\n",
                _text(str(number)),
                _text("cpu"),
                _integer(values.size),
            )
            tensor = (
                b"ctorch._utils\n_rebuild_tensor_v2\n((" + _text("storage") + b"".join(storage) + b"tQ",
                _integer(0) + _tuple(values.shape) + _tuple(strides),
                b"\x89ccollections\nOrderedDict\n)RtR",  # no gradient, no hooks
            )
            pickled.append(_text(name) + b"".join(tensor))
            archive.writestr(f"weights/data/{number}", values.tobytes())
        archive.writestr("weights/data.pkl", b"".join([*pickled, b"u."]))
        archive.writestr("weights/version", "3\n")


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode("ascii")


def _integer(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def _tuple(numbers: Iterable[int]) -> bytes:
    return b"(%bt" % b"".join(map(_integer, numbers))


SIZES = ((32, 32), (64, 64), (128, 128), (299, 299), (400, 400), (48, 80), (310, 200))  # height, width


def images(height: int, width: int) -> np.ndarray:
    """uint8 [2, height, width, 3]: slopes, a chessboard and a disc; noise of the full range."""
    row, column = np.mgrid[:height, :width]
    disc = (2 * row - height) ** 2 + (2 * column - width) ** 2 < (height * width) // 4
    chessboard = (row * 8 // height + column * 8 // width) % 2
    drawn = np.stack([row * 255 // height, chessboard * 200 + disc * 55, column * 255 // width], axis=-1)
    noise = np.random.default_rng((height, width)).integers(0, 256, drawn.shape)
    return np.uint8([drawn, noise])


def image_sets(num: int = 24, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Two uint8 sets [num, size, size, 3] of differing kinds: coloured blocks, and paler ones under noise."""
    rng = np.random.default_rng(1)
    real, fake = (rng.integers(0, 256, (num, 4, 4, 3)).repeat(size // 4, 1).repeat(size // 4, 2) for _ in range(2))
    return np.uint8(real), np.uint8(fake * 3 // 4 + rng.integers(0, 64, fake.shape))


def feature_sets(num: int = 2500, dim: int = 2048) -> tuple[np.ndarray, np.ndarray]:
    """Two float32 sets [num, dim], real and fake: not negative, correlated, covariances of full rank."""
    rng = np.random.default_rng(2)
    spread, loadings = rng.uniform(0.1, 0.5, dim), rng.normal(0, 0.1, (16, dim))
    sets = []
    for shift, strength in ((0.0, 1.0), (0.1, 1.2)):
        rows = rng.normal(0.4 + shift, spread, (num, dim)) + rng.normal(0, strength, (num, 16)) @ loadings
        sets.append(np.float32(np.maximum(rows, 0)))
    return sets[0], sets[1]
