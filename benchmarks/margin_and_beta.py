"""Which automatic beta carries over from set to set? Trains sets x rules with a relative margin and prints a table.

    python -m benchmarks.margin_and_beta --sets=digits,digits16,avatars,avatars16 --rules=nats_64,value_0.125
    taskset -c 0 python -m benchmarks.margin_and_beta      all of it, some hours on one core

Results that are there are not repeated. Avatars are drawn by the packages of the extra [avatars]; "fashion" are the IDX
files of Fashion-MNIST (Debian: dataset-fashion-mnist). Every run has the settings of configs/digits.py but for beta and
margin: batch 16, learning rate 1e-3, alpha 0.25, alpha_d 0.5, simultaneous update. Rules, each with its number:

    fixed     beta
    searched  beta, with the margin 25 of configs/digits.py instead of a relative one
    root      objective.auto_beta: beta * loss_rec is held at this number times the root of the values of an image
    nats      the same, at this number
    value     the same, at half of this number for each value: beta = number / mean squared error; 1 is the sigma-VAE
    latent    the same, at this number for each latent dimension
    averaged  as root, with a moving average of loss_rec (decay 0.9) instead of the batch's
    frozen    as root with that average in the warm-up, then the beta of its last step
    budget    the nats of KL(real) at which a controller holds beta (as GECO, Rezende and Viola 2018, arXiv 1810.00597)

Columns: kl, gap and the hinges' active shares (reconstructions, samples) over the last 300 steps; PSNR of held-out
images; colour, mean absolute error of their mean colour, of 255; saturation of originals, reconstructions and samples
(mean of the largest minus the smallest channel, of 255); AlexNet, a Frechet distance of 1,500 samples (no FID);
recognised, the share of digits that a classifier names for sure (docs/digits.md).
"""

from collections.abc import Callable
import functools
import gzip
import json
import math
import pathlib
import sys
from typing import Any

from absl import flags
import jax
import ml_collections
import numpy as np

from benchmarks import digits_classifier
from configs import digits as digits_config
from introvae_jax import errors, parallel, pictures
from introvae_jax.data import digits, loader, source
from introvae_jax.data.readers import avatars
from introvae_jax.experiment import Experiment
from introvae_jax.features import alexnet
from introvae_jax.metrics import frechet
from introvae_jax.model import Model
from introvae_jax.reporting import drawing, health
from introvae_jax.training import calibrate

_OUT = flags.DEFINE_string("out", "runs/margin_and_beta", "Folder of the runs.")
_SETS = flags.DEFINE_list("sets", ["digits", "digits16", "avatars", "avatars16", "fashion"], "Sets of images.")
_RULES = flags.DEFINE_list(
    "rules", ["searched_3", "fixed_3", "nats_64", "value_0.125", "value_1", "root_2.5"], "Rules."
)
_STEPS = flags.DEFINE_integer("steps", 1_500, "Steps of a run.")
_WARMUP = flags.DEFINE_integer("warmup", 300, "The first of them, as a VAE.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of the runs.")
_FASHION = flags.DEFINE_string("fashion", "/usr/share/datasets/fashion-mnist", "Folder of Fashion-MNIST's IDX files.")
BY_HAND = ("averaged", "frozen", "budget")  # rules that the package does not have
RULES = ("fixed", "searched", "nats", "value", "latent", "root", *BY_HAND)
OFFSET = 3.0  # nats, of the relative margin
DECAY, RECENT = 0.9, 50  # of the average of loss_rec, and the steps that are looked back
SPEED = 0.02  # of the controller: change of log(beta) a step, for a KL of 0
LAST = 300  # steps that the terms are averaged over
SAMPLES, TESTED = 1_500, 500  # images
AVATARS, FASHION = 8_000, 10_000  # images in a set
COLUMNS = {
    "beta": ("beta",), "kl real / rec / fake": ("kl_real", "kl_rec", "kl_fake"), "gap": ("kl_gap",),
    "hinges": ("hinge_rec_active", "hinge_fake_active"), "loss_rec": ("loss_rec",), "PSNR": ("PSNR",),
    "colour": ("colour",), "saturation": ("saturation_real", "saturation_rec", "saturation_fake"),
    "AlexNet": ("AlexNet",), "recognised": ("recognised",),
}  # fmt: skip


def main(_) -> None:
    rows = {}
    for name in _SETS.value:
        for rule in _RULES.value:
            runs = [result(name, rule, seed) for seed in map(int, _SEEDS.value)]
            rows[f"{name}, {rule}"] = runs
    print(table(rows))


def result(name: str, rule: str, seed: int) -> dict[str, float]:
    """What a run came to, trained unless that is done."""
    out = pathlib.Path(_OUT.value).expanduser() / f"{name}_{rule}_{_STEPS.value}_{seed}"
    path = out / "result.json"
    if not path.exists():
        found = json.dumps(train(name, rule, seed, out))
        path.write_text(found, encoding="utf-8")
        jax.clear_caches()
    found = json.loads(path.read_text(encoding="utf-8"))
    print(name, rule, seed, json.dumps(found), file=sys.stderr, flush=True)
    return found


def config_of(splits: source.Splits, seed: int) -> ml_collections.ConfigDict:
    """configs/digits.py for images of any kind."""
    config, (size, _, channels) = digits_config.get_config(), splits.train.shape[1:]
    config.seed, config.steps, config.objective.warmup_steps = seed, _STEPS.value, _WARMUP.value
    config.data.size, config.data.channels, config.data.mirror = size, channels, channels == 3
    config.model.channels = tuple(16 * 2**stage for stage in range(int(math.log2(size / 4))))
    config.model.z_dim = (64 if channels == 3 else 32) * max(size // 32, 1)
    config.objective.margin_offset = OFFSET
    return config


def train(name: str, rule: str, seed: int, out: pathlib.Path) -> dict[str, float]:
    """Trains one run, draws it into `out` and scores it."""
    splits = images(name)
    config = config_of(splits, seed)
    kind, _, number = rule.partition("_")
    if kind not in RULES:
        raise errors.UserError(f"--rules={rule}: must be NAME_NUMBER with a name of {', '.join(RULES)}")
    number = float(number)
    if kind == "searched":
        config.objective.margin_offset = 0.0
    if kind in ("fixed", "searched"):
        config.objective.beta = number
    elif kind not in BY_HAND:
        config.objective.auto_beta = nats_of(kind, number, config) / nats_of("root", 1.0, config)
    experiment = Experiment(config, parallel.replicas((jax.devices()[0],)))
    constant_error = health.error_of_mean_image(splits.train, np.arange(256))
    state, records = advance(experiment, splits, functools.partial(next_beta, kind, number, config, constant_error))
    statistics = calibrate.Calibration(config, experiment.networks, splits.train).statistics(state, "ema")["ema"]
    trained = Model.create(
        config, state.encoder.ema, state.decoder.ema, statistics, step=int(state.step), weights="ema", batch_size=16
    )
    for title, picture in drawing.draw(trained, splits.test).items():
        pictures.save(picture, out / f"{title}.png")
    return ending(records[-LAST:]) | scores(name, trained, splits)


def advance(
    experiment: Experiment, splits: source.Splits, beta_after: Callable[[list[dict[str, float]], bool], float]
) -> tuple[Any, list[dict[str, float]]]:
    """All steps of a run on one device: the last state, and the terms of each step with its beta.

    beta_after: (terms so far, whether the next step is of the warm-up) -> beta, which an automatic one overrides.
    """
    config, records = experiment.config, []

    def step(name: str, state: Any, x: np.ndarray, beta: np.float32) -> tuple[Any, dict[str, jax.Array]]:
        return experiment.make_step(name, beta=beta)(state, x)

    steps = {name: jax.jit(functools.partial(step, name), donate_argnums=0) for name in ("vae", "introvae")}
    state = jax.jit(experiment.init_state)()
    batches = loader.batches(splits.train, batch_size=config.batch_size, seed=config.seed, threads=1)
    for number, x in zip(range(config.steps), batches, strict=False):
        warms_up = number < config.objective.warmup_steps
        beta = np.float32(beta_after(records, warms_up))
        state, terms = steps["vae" if warms_up else "introvae"](state, x, beta)
        records.append({"beta": float(beta), **{name: float(value) for name, value in terms.items()}})
    return state, records


def nats_of(kind: str, number: float, config: ml_collections.ConfigDict) -> float:
    """What a rule holds beta * loss_rec at."""
    values = config.data.size**2 * config.data.channels
    per = {"nats": 1.0, "value": values / 2, "latent": config.model.z_dim}
    return number * per.get(kind, math.sqrt(values))


def next_beta(
    kind: str, number: float, config: ml_collections.ConfigDict, constant_error: float,
    records: list[dict[str, float]], warms_up: bool,
) -> float:  # fmt: skip
    """The beta of the rules that the package does not have. constant_error: loss_rec of the mean image."""
    if kind not in BY_HAND:
        return config.objective.beta
    last = records[-1] if records else {"beta": config.objective.beta, "kl_real": number}
    if kind == "budget":
        return last["beta"] * math.exp(SPEED * (number - last["kl_real"]) / number)
    if kind == "frozen" and not warms_up:
        return last["beta"]
    average = constant_error
    for record in records[-RECENT:]:
        average = DECAY * average + (1 - DECAY) * record["loss_rec"]
    return nats_of(kind, number, config) / average


def images(name: str) -> source.Splits:
    """The set `name`; the first 5% of those without labels are held out."""
    size = int("".join(filter(str.isdigit, name)) or 32)
    if name.startswith("digits"):
        x, test = digits.load()[0], digits.is_test()
        x = np.uint8(x.reshape(-1, size, 32 // size, size, 32 // size, 1).mean((2, 4)) + 0.5)
        return source.Splits(x[~test], x[test], name)
    if name.startswith("avatars"):
        drawn = avatars.open_avatars("", size, AVATARS)
        x = np.stack([drawn.read(i) for i in range(AVATARS)])
    elif name == "fashion":
        path = pathlib.Path(_FASHION.value) / "train-images-idx3-ubyte.gz"
        x = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
        x = np.pad(x[np.random.default_rng(0).permutation(len(x))[:FASHION]], ((0, 0), (2, 2), (2, 2)))[..., None]
    else:
        raise errors.UserError(f"--sets={name}: must be digits, fashion or avatars, with a size as in avatars16")
    return source.Splits(x[len(x) // 20 :], x[: len(x) // 20], name)


def ending(records: list[dict[str, float]]) -> dict[str, float]:
    """Means of the last steps' terms, without steps of the warm-up."""
    records = [record for record in records if record.keys() == records[-1].keys()]
    return {name: float(np.mean([record[name] for record in records])) for name in records[-1]}


def scores(name: str, trained: Model, splits: source.Splits) -> dict[str, float]:
    """Of samples and of reconstructions of held-out images."""
    real = splits.train[np.random.default_rng(0).permutation(len(splits.train))[:SAMPLES]]
    samples, test = pictures.to_uint8(trained.sample(SAMPLES)), splits.test[:TESTED]
    originals, copies = test / 255.0, np.clip(trained.reconstruct(test), 0, 1)
    colours = [images.mean((1, 2)) for images in (originals, copies)]
    found = {
        "PSNR": float(np.mean(-10 * np.log10(np.mean((copies - originals) ** 2, axis=(1, 2, 3))))),
        "colour": 255 * float(np.abs(colours[0] - colours[1]).mean()),
        "AlexNet": float(frechet.distance(moments(real), moments(samples))),
    }
    for title, shown in {"real": originals, "rec": copies, "fake": samples / 255.0}.items():
        found[f"saturation_{title}"] = 255 * float(np.ptp(shown, axis=-1).mean())
    if name == "digits":
        found["recognised"] = digits_classifier.verdict(judge()(np.float32(samples) / 255))["recognised"]
    return found


@functools.cache
def judge() -> Callable[[np.ndarray], np.ndarray]:
    return digits_classifier.train()[0]


def moments(images: np.ndarray) -> frechet.Moments:
    """Of AlexNet's features of uint8 images."""
    look, found = features(), frechet.Moments()
    for part in np.array_split(images, -(-len(images) // 50)):
        found.add(np.asarray(look(part.repeat(3 // part.shape[-1], axis=-1))))
    return found


@functools.cache
def features() -> Callable[[np.ndarray], jax.Array]:
    return jax.jit(functools.partial(alexnet.features, alexnet.load()[0]))


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """A row for each set and rule, means over the seeds."""
    lines = ["| set, rule | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for title, runs in rows.items():
        cells = []
        for names in COLUMNS.values():
            values = [[run[name] for run in runs] for name in names if name in runs[0]]
            cells.append(" / ".join(f"{np.mean(each):.3g}" for each in values) or "-")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    errors.run(main)
