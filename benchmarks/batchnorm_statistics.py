"""Compares kinds of BatchNorm statistics for evaluating and using a trained model.

    python -m benchmarks.ablation --on=digits --out=runs/ablation --only=base        trains
    python -m benchmarks.batchnorm_statistics --on=digits --out=runs/ablation        scores and prints the table

running      averages that forget a tenth with each pass, over real, reconstructed and sampled images in turn, as other
             frameworks keep them: measured by taking the last PASSES steps once more
recalibrated measured for the weights at hand, one set for each use: what checkpoints here hold
batch        those of the 64 images that happen to be decoded together

Means over the seeds, and the range. 1,000 samples against as many training images; PSNR of held-out images.
"""

from collections.abc import Callable, Iterable, Iterator
import functools
import pathlib
from typing import Any

from absl import flags
from flax import linen as nn
import jax
import numpy as np

from benchmarks import ablation_variants
from introvae_jax import errors, model, parallel, pictures
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.data import loader, source
from introvae_jax.evaluation import image_sets, specs
from introvae_jax.evaluation.extractors import FeatureExtractors
from introvae_jax.evaluation.set_evaluation import SetEvaluation
from introvae_jax.experiment import Experiment
from introvae_jax.metrics import reconstruction
from introvae_jax.objectives import terms
from introvae_jax.training import calibrate
from introvae_jax.training import step as step_lib
from introvae_jax.training.state import State

_ON = flags.DEFINE_enum("on", "digits", sorted(ablation_variants.BASES), "The images.")
_OUT = flags.DEFINE_string("out", "runs/ablation", "Folder of the runs.")
STEPS = 60  # 0.9 to the power of their passes is below 1e-5
DECAY = 0.9
BATCH, METRICS = 64, ("alexnet_frechet1000", "swd1000")


def main(_) -> None:
    workdirs = sorted((pathlib.Path(_OUT.value).expanduser() / _ON.value).glob("base_*"))
    if not workdirs:
        raise errors.UserError(f"{_OUT.value}: no runs of the base there; benchmarks.ablation trains them")
    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    for workdir in workdirs:
        for row, scores in scored(workdir).items():
            rows.setdefault(row, []).append(scores)
        jax.clear_caches()
    print(table(rows))


def scored(workdir: pathlib.Path) -> dict[tuple[str, str], dict[str, float]]:
    """The metrics of one run, by statistics and weights."""
    config = ablation_variants.config(_ON.value, "base")
    config.seed = int(workdir.name.rpartition("_")[2])
    run, splits = Experiment(config, parallel.replicas()), source.open_splits(config.data)
    checkpoints = Checkpoints(workdir)
    state = checkpoints.restore_state(config.steps, run.replicas.replicate(jax.jit(run.init_state)()))
    state, running = trained_on(run, splits.train, state)
    recalibrated = calibrate.Calibration(config, run.networks, splits.train).statistics(state, "ema", "raw")
    data = config.data.to_dict()
    real = image_sets.from_split(splits, "train", "real", data, 0)
    evaluation = SetEvaluation(specs.parse(METRICS)[0], real, real.shape, FeatureExtractors(), batch_size=BATCH)
    found = {}
    for weights in ("ema", "raw"):
        field = "ema" if weights == "ema" else "params"
        params = getattr(state.encoder, field), getattr(state.decoder, field)
        for name, statistics in {"running": running, "recalibrated": recalibrated[weights], "batch": None}.items():
            user = User(run, params, statistics)
            values = {score.name: score.value for score in evaluation.score(user.samples)}
            held_out = splits.test[np.arange(min(len(splits.test), 448))]
            errors_ = [reconstruction.errors(x / 255.0, user.reconstruct(x)) for x in np.split(held_out, 7)]
            values["psnr"] = float(np.mean([part["psnr"] for part in errors_]))
            found[name, weights] = {k: v for k, v in values.items() if not k.startswith("swd1000_")}
    return found


def trained_on(run: Experiment, train: source.Source, state: State) -> tuple[State, calibrate.Statistics]:
    """The state after STEPS more steps, and the running averages that their passes leave behind."""
    config, running = run.config, {}
    images = loader.batches(
        train, batch_size=config.batch_size, seed=config.seed, start=int(state.step)
    )  # fmt: skip
    step, passes = jax.jit(run.make_step(config.objective.name)), make_passes(run)
    for _ in range(STEPS):
        batch = next(images)
        for kind, moments in passes(state, batch):
            old = running.get(kind, moments)
            running[kind] = jax.tree.map(lambda old, new: DECAY * old + (1 - DECAY) * new, old, moments)
        state, _ = step(state, batch)
    return state, {**running, "decoder_rec": running["decoder"]}


def make_passes(run: Experiment) -> Callable[[State, jax.Array], Iterable[tuple[str, Any]]]:
    """(state, images) -> the moments of each pass of a step, in the order in which they are made."""
    config, (encoder, decoder) = run.config, run.networks

    def passes(state: State, images: jax.Array) -> list[Any]:
        batch = step_lib.draw_batch(
            state, images, decoder.z_dim, config.data.mirror, config.batch_size, run.replicas, config.data.dequantize
        )
        encode, decode = (
            functools.partial(network.apply, {"params": part.params}, mutable="batch_stats")
            for network, part in ((encoder, state.encoder), (decoder, state.decoder))
        )
        (mu, logvar), of_real = encode(batch.x)
        rec, of_z = decode(terms.reparameterize(mu, logvar, batch.eps))
        fake, of_zp = decode(batch.zp)
        reported = [of_real, of_z, of_zp, encode(rec)[1], encode(fake)[1]]
        return [moments["batch_stats"] for moments in reported]

    names, passes = ("encoder", "decoder", "decoder", "encoder", "encoder"), jax.jit(passes)
    return lambda state, images: zip(names, jax.device_get(passes(state, images)), strict=True)


class User:
    """Samples and reconstructions of a model with given statistics; None for those of each batch."""

    def __init__(self, run: Experiment, params: tuple[Any, Any], statistics: calibrate.Statistics | None):
        found = statistics or {}
        self._model = model.Model.create(run.config, *params, found, step=0, weights="", batch_size=BATCH)
        self._networks, self._stored = run.networks, statistics is not None
        self.samples = image_sets.ImageSet(None, self._model.image_shape, self._sample, {})

    def _apply(self, network: nn.Module, variables: Any, x: np.ndarray) -> Any:
        return jax.device_get(_applied(network, variables, x, self._stored))

    def _sample(self, count: int, batch_size: int) -> Iterator[np.ndarray]:
        for start in range(0, count, batch_size):
            z = self._model.latents(range(start, start + batch_size))
            images = self._apply(self._networks[1], self._model.decoder_variables, z)
            yield pictures.to_uint8(images)[: count - start]

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        mu, _ = self._apply(self._networks[0], self._model.encoder_variables, np.float32(images) / 255)
        return np.clip(self._apply(self._networks[1], self._model.decoder_rec_variables, mu), 0, 1)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _applied(network: nn.Module, variables: Any, x: jax.Array, stored: bool) -> Any:
    return network.apply(variables, x, use_running_average=stored)


def table(rows: dict[tuple[str, str], list[dict[str, float]]]) -> str:
    """A line for each kind of statistics and weights."""
    columns = list(next(iter(rows.values()))[0])
    lines = ["| statistics | weights | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for (name, weights), runs in rows.items():
        values = [[run[column] for run in runs] for column in columns]
        cells = [f"{np.mean(v):.3g} ({min(v):.3g} to {max(v):.3g})" for v in values]
        lines.append(f"| {name} | {weights} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    errors.run(main)
