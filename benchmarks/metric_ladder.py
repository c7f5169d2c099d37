"""Sensitivity of the metrics to increasing damage of real images: noise, blur and mode collapse.

    python -m introvae_jax.prepare --source=avatars --name=avatars --resolution=64
    python -m benchmarks.metric_ladder --out=docs/pictures/metric_ladder.png

noise      Gaussian, in grey levels
blur       Gaussian, radius in pixels
collapse   only so many different images are left, repeated

The first rung is undamaged: other images of the set than those compared with, so the metrics' noise floor. With
--inception the FID and its like are the true ones; without, those of a network of random weights, which is named so.
"""

from collections.abc import Callable, Iterator
import pathlib

from absl import flags
import jax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np
from PIL import Image, ImageFilter

from configs import avatars, digits
from introvae_jax import disk, errors
from introvae_jax.data import source
from introvae_jax.evaluation import image_sets, specs
from introvae_jax.evaluation.extractors import FeatureExtractors
from introvae_jax.evaluation.set_evaluation import SetEvaluation
from introvae_jax.features import alexnet
from introvae_jax.features.weights import INCEPTION_SHA256
from introvae_jax.metrics import reconstruction, ssim

_ON = flags.DEFINE_enum("on", "avatars", ["avatars", "digits"], "The images.")
_OUT = flags.DEFINE_string("out", "runs/metric_ladder.png", "The plot; the table is printed.")
_COUNT = flags.DEFINE_integer("count", 1000, "Images of each set.", lower_bound=1000)
_METRICS = flags.DEFINE_list(
    "metrics", ["alexnet_frechet", "alexnet_kernel", "alexnet_precision_recall", "swd", "msssim"], "Metrics to watch."
)
_INCEPTION = flags.DEFINE_string("inception", "", "File of Inception's weights.")
_SHA256 = flags.DEFINE_string("inception_sha256", INCEPTION_SHA256, "Its hash.")

LADDERS: dict[str, tuple[float, ...]] = {
    "noise": (0, 4, 8, 16, 32, 64),
    "blur": (0, 0.5, 1, 1.5, 2, 4),
    "collapse": (0, 300, 100, 30, 10, 3),
}


def damaged(images: np.ndarray, ladder: str, rung: float) -> np.ndarray:
    """uint8 images [N, H, W, C] after so much of it; 0 leaves them as they are."""
    if rung == 0:
        return images
    if ladder == "collapse":
        return images[np.arange(len(images)) % int(rung)]
    if ladder == "noise":
        noise = np.random.default_rng(0).normal(0, rung, images.shape)
        return np.uint8(np.clip(images + noise, 0, 255) + 0.5)
    return np.stack([_blurred(image, rung) for image in images])


def _blurred(image: np.ndarray, radius: float) -> np.ndarray:
    picture = Image.fromarray(image.squeeze()).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(picture).reshape(image.shape)


def main(_) -> None:
    config = {"avatars": lambda: avatars.get_config("64"), "digits": digits.get_config}[_ON.value]()
    train, count = source.open_splits(config.data).train, 2 * _COUNT.value
    real, other = np.split(train[np.random.default_rng(0).permutation(len(train))[:count]], 2)
    words = [f"{word}{_COUNT.value // 2 if word == 'msssim' else _COUNT.value}" for word in _METRICS.value]
    evaluation = SetEvaluation(
        specs.parse(words)[0], stream(real), real.shape[1:],
        FeatureExtractors(inception_path=_INCEPTION.value, inception_sha256=_SHA256.value), generated=len(other),
    )  # fmt: skip
    found: dict[str, dict[str, list[float]]] = {}
    undamaged = {score.name: score.value for score in evaluation.score(stream(other))}
    for ladder, rungs in LADDERS.items():
        for rung in rungs:
            images, scores = damaged(other, ladder, rung), dict(undamaged)
            if rung > 0:
                scores = {score.name: score.value for score in evaluation.score(stream(images))}
            if ladder != "collapse":  # of copies, which these are
                scores |= of_copies(other, images)
            for name, value in scores.items():
                found.setdefault(name, {}).setdefault(ladder, []).append(value)
    print(table(found))
    plot(found, pathlib.Path(_OUT.value).expanduser())


def of_copies(images: np.ndarray, copies: np.ndarray) -> dict[str, float]:
    """The metrics of reconstructions, of uint8 images [N, H, W, C] and what became of them; LPIPS only of colour."""
    error = reconstruction.errors(images / 255.0, copies / 255.0)
    x, y = np.float32(images) / 255, np.float32(copies) / 255
    found = {"psnr": error["psnr"].mean(), "ssim": np.mean(ssim.ssim(x, y))}
    if images.shape[-1] == 3:
        variables, _ = alexnet.load()
        compare = jax.jit(alexnet.lpips)
        parts = [compare(variables, x[i : i + 50], y[i : i + 50]) for i in range(0, len(x), 50)]
        found["lpips"] = np.mean(np.concatenate(parts))
    return {name: float(value) for name, value in found.items()}


def stream(images: np.ndarray) -> image_sets.ImageSet:
    """An array as a set in its own order."""

    def batches(count: int, batch_size: int) -> Iterator[np.ndarray]:
        return (images[start : min(start + batch_size, count)] for start in range(0, count, batch_size))

    return image_sets.ImageSet(len(images), images.shape[1:], batches, {})


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """A table for each ladder, a line for each metric."""
    blocks = []
    for ladder, rungs in LADDERS.items():
        lines = [f"| {ladder} | " + " | ".join(f"{rung:g}" if rung else "none" for rung in rungs) + " |"]
        lines.append("|---" * (len(rungs) + 1) + "|")
        for name, values in found.items():
            if ladder in values:
                lines.append(f"| {name} | " + " | ".join(f"{value:.3g}" for value in values[ladder]) + " |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def plot(found: dict[str, dict[str, list[float]]], path: pathlib.Path) -> None:
    """A panel for each metric, a line for each ladder over its rungs."""
    shown: Callable[[str], bool] = lambda name: not name.endswith("_std") and name.count("_") < 3  # noqa: E731
    names = [name for name in found if shown(name)]
    columns = 4
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns).flat
    for panel, name in zip(axes, names, strict=False):
        for ladder, values in found[name].items():
            panel.plot(range(len(values)), values, marker=".", label=ladder)
        panel.set(title=name, xlabel="rung")
    for empty in axes[len(names) :]:
        empty.set_axis_off()
    axes[0].legend()
    with disk.atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)


if __name__ == "__main__":
    errors.run(main)
