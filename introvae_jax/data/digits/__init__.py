"""The embedded digits: 5,000 images of MNIST, 500 of each class (LICENSE.md beside this file)."""

import pathlib

import numpy as np

PER_CLASS, TEST_PER_CLASS = 500, 50


def load() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [5000, 32, 32, 1], 28x28 with a black border of 2, and labels uint8 [5000], sorted."""
    with np.load(pathlib.Path(__file__).with_name("digits.npz")) as file:
        images, labels = file["images"], file["labels"]
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None], labels


def is_test() -> np.ndarray:
    """Which of them are held out, bool [5000]: the last 50 of each class."""
    return np.arange(10 * PER_CLASS) % PER_CLASS >= PER_CLASS - TEST_PER_CLASS
