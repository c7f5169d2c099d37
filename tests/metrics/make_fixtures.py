"""Other people's SSIM of a few pairs of pictures, for test_ssim.py.

    python tests/metrics/make_fixtures.py

Each figure is added where its maker is installed: run it once where TensorFlow is, once where scikit-image is.
"""

import pathlib

import numpy as np

PATH = pathlib.Path(__file__).parent / "ssim_golden.npz"


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Three pairs, uint8 [3, 176, 192, 3]: blocks of several sizes, which pack well, and worse and worse copies."""
    rng = np.random.RandomState(0)
    blocks = [rng.uniform(-1, 1, (3, 176 // k, 192 // k, 3)).repeat(k, 1).repeat(k, 2) for k in (4, 8, 16)]
    a = 0.5 + 0.15 * sum(blocks)
    other = rng.uniform(-1, 1, (3, 44, 48, 3)).repeat(4, 1).repeat(4, 2)
    b = a + np.array([0.02, 0.1, 0.4]).reshape(3, 1, 1, 1) * other
    b[1] = 0.8 * b[1]
    return tuple(np.uint8(np.round(255 * np.clip(x, 0, 1))) for x in (a, b))


def main() -> None:
    a, b = pictures()
    known = dict(np.load(PATH)) if PATH.exists() else {}
    known |= {"a": a, "b": b}
    try:
        import tensorflow as tf

        pair = [tf.constant(x, tf.float32) / 255 for x in (a, b)]
        known["tensorflow_ssim"] = tf.image.ssim(*pair, max_val=1.0).numpy()
        known["tensorflow_ms_ssim"] = tf.image.ssim_multiscale(*pair, max_val=1.0).numpy()
    except ImportError:
        print("no TensorFlow: its figures stay as they are")
    try:
        from skimage import metrics

        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        known["skimage_ssim"] = np.array(
            [
                metrics.structural_similarity(x / 255, y / 255, data_range=1.0, channel_axis=-1, **options)
                for x, y in zip(a, b, strict=True)
            ]
        )
    except ImportError:
        print("no scikit-image: its figures stay as they are")
    np.savez_compressed(PATH, **known)
    print({name: value for name, value in known.items() if name not in "ab"}, PATH.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
