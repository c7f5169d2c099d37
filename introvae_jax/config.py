"""Validates config values before any device work."""

from collections.abc import Callable
import json
import math
import os
from typing import Any

import ml_collections

from introvae_jax.data.densities import DENSITIES
from introvae_jax.data.images import CROPS, FILTERS, crop_box
from introvae_jax.data.source import SOURCES
from introvae_jax.errors import UserError, warn
from introvae_jax.evaluation import specs
from introvae_jax.nets import NETWORKS
from introvae_jax.nets.layers import GROUP_SIZE, NORMS
from introvae_jax.nets.residual import BLOCK_NORMS
from introvae_jax.objectives import OBJECTIVES
from introvae_jax.objectives.introvae import HINGES
from introvae_jax.training.optimizer import SCHEDULES
from introvae_jax.training.step import UPDATE_ORDERS

DTYPES = ("float32", "bfloat16")
PRIORS = ("normal", "sphere")
CACHES = ("host", "device")

# Values of keys that are missing in the stored configs of older runs.
BEFORE = {
    "objective.warmup_beta": 0.0, "objective.margin_offset": 0.0, "objective.auto_beta": 0.0, "optim.epsilon": 1e-8,
    "optim.decay_factor": 0.1,
}  # fmt: skip
# Keys that may change when a run is resumed: the numbers of the next step do not depend on them.
MAY_CHANGE = ("steps", "log.", "eval.", "checkpoint.", "data.path", "data.cache", "data.threads", "model.remat")

REMOVED = {"accumulate": 1}  # former keys, with the value that had no effect
_CHOICES = {
    "data.source": tuple(SOURCES), "data.channels": (1, 3), "data.resize": tuple(FILTERS), "data.cache": CACHES,
    "model.network": NETWORKS, "model.prior": PRIORS, "model.norm": NORMS, "model.block_norm": BLOCK_NORMS,
    "model.dtype": DTYPES, "objective.name": OBJECTIVES, "objective.hinge": HINGES,
    "objective.update_order": UPDATE_ORDERS, "optim.schedule": SCHEDULES,
}  # fmt: skip
_AT_LEAST_ONE = (
    "steps", "batch_size", "model.z_dim", "model.width", "model.depth", "objective.decoder_updates",
    "log.every", "log.pictures_every", "checkpoint.every", "checkpoint.keep", "checkpoint.calibration_batches",
)  # fmt: skip
_AT_MOST = {
    "steps": 2**31 - 1, "batch_size": 2**20, "data.threads": 2**12, "model.z_dim": 2**16, "model.width": 2**16,
    "model.depth": 2**10,
}  # fmt: skip
MOST_CHANNELS = 2**16  # per layer
MOST_CALIBRATION_IMAGES = 2**26
_ABOVE_ZERO = ("optim.learning_rate", "objective.beta", "objective.beta_kl", "optim.epsilon", "optim.decay_factor")
_NOT_NEGATIVE = (
    "seed", "objective.alpha", "objective.alpha_d", "objective.margin", "objective.beta_neg", "objective.gamma",
    "objective.match_x", "objective.match_z", "objective.warmup_beta", "objective.warmup_steps",
    "objective.margin_offset", "objective.auto_beta", "optim.clip_norm", "data.cache_gib", "data.threads", "eval.every",
    "checkpoint.rollbacks",
)  # fmt: skip
_BELOW_ONE = ("optim.beta1", "optim.beta2", "optim.ema_decay", "optim.decay_factor")
RULED = (
    *_CHOICES, *_AT_LEAST_ONE, *_ABOVE_ZERO, *_NOT_NEGATIVE, *_BELOW_ONE,
    "data.path", "data.name", "data.size", "data.crop", "data.mirror", "data.dequantize", "data.test_fraction",
    "model.channels", "model.expand_equal", "model.remat", "log.stop_on_collapse", "optim.decay_steps",
    "eval.metrics", "eval.best", "eval.inception",
)  # fmt: skip

# Network keys that the oldest checkpoints lack, with the values that those were trained with.
NEWER = {"network": "residual", "prior": "normal", "block_norm": "sum", "expand_equal": False}
# Keys and types that a stored config needs to build its networks, by kind of example.
_STORED = {
    "images": {
        "data.size": int, "data.channels": int, "data.crop": str, "data.resize": str, "model.channels": tuple,
        "model.z_dim": int, "model.prior": str, "model.norm": str, "model.block_norm": str, "model.expand_equal": bool,
        "model.dtype": str, "model.remat": bool,
    },
    "points": {"data.name": str, "model.z_dim": int, "model.width": int, "model.depth": int},
}  # fmt: skip


def validate(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for the first invalid value. The message has the key, the value and the allowed values."""
    values = flatten(config)
    missing = [key for key in RULED if key not in values]
    if missing:
        raise UserError(f"config.{missing[0]} is missing: an experiment starts from configs/default.py")

    def require(ok: bool, key: str, allowed: str) -> None:
        if not ok:
            raise UserError(f"config.{key} = {values[key]!r}: must be {allowed}")

    for key, value in values.items():
        if isinstance(value, float):
            require(math.isfinite(value), key, "a finite number")
    for key, allowed in _CHOICES.items():
        require(values[key] in allowed, key, "one of " + ", ".join(map(repr, allowed)))
    for key in _AT_LEAST_ONE:
        require(values[key] >= 1, key, "1 or more")
    for key, most in _AT_MOST.items():
        require(values[key] <= most, key, f"{most:,} or less")
    most = MOST_CALIBRATION_IMAGES // values["batch_size"]
    require(values["checkpoint.calibration_batches"] <= most, "checkpoint.calibration_batches",
            f"{most:,} or less for batch_size = {values['batch_size']:,}")  # fmt: skip
    for key in _ABOVE_ZERO:
        require(values[key] > 0, key, "above 0")
    for key in _NOT_NEGATIVE:
        require(values[key] >= 0, key, "0 or more")
    for key in _BELOW_ONE:
        require(0 <= values[key] < 1, key, "at least 0 and below 1")
    require(values["seed"] < 2**32, "seed", "below 2**32")
    require(0 < values["data.test_fraction"] < 1, "data.test_fraction", "above 0 and below 1")
    if values["data.source"] == "digits":
        require(values["data.size"] == 32, "data.size", "32, the size of the embedded digits")
        require(values["data.channels"] == 1, "data.channels", "1: the embedded digits are grey")

    if values["data.source"] == "density":
        _check_points(values, require)
    else:
        of_images = [repr(name) for name, network in NETWORKS.items() if not network.of_points]
        require(repr(values["model.network"]) in of_images, "model.network", f"{' or '.join(of_images)} for images")
        _check_residual(values, require)
    objective = OBJECTIVES[values["objective.name"]]
    objective.check(values, require)
    _check_eval(values, require)
    decay_steps = values["optim.decay_steps"]
    require(all(type(s) is int and s >= 1 for s in decay_steps), "optim.decay_steps", "whole numbers above 0")
    if values["optim.schedule"] == "step":
        require(len(decay_steps) > 0, "optim.decay_steps", "given when optim.schedule = 'step'")
    if objective.has_warmup and values["objective.warmup_steps"] >= values["steps"]:
        warn(f"config.objective.warmup_steps includes the last step, {values['steps']}: this run trains a plain VAE")


def _check_points(values: dict[str, Any], require: Callable[[bool, str, str], None]) -> None:
    """Checks the values of a run on a 2-D density."""
    require(values["data.name"] in DENSITIES, "data.name", "one of " + ", ".join(map(repr, DENSITIES)))
    needed = {"model.network": "mlp", "model.norm": "none", "model.prior": "normal", "model.dtype": "float32",
              "data.mirror": False, "data.dequantize": False, "objective.auto_beta": 0.0}  # fmt: skip
    for key, value in needed.items():
        require(values[key] == value, key, f"{value!r} for data.source = 'density'")


def _check_eval(values: dict[str, Any], require: Callable[[bool, str, str], None]) -> None:
    """Checks the values of the evaluation during training."""
    metrics = specs.split(values["eval.metrics"])
    best = values["eval.best"] or (metrics[0] if metrics else "")
    try:
        asked = {spec.word: spec.metric for kind in specs.parse(metrics) for spec in kind}
    except UserError as error:
        require(False, "eval.metrics", f"metrics ({error})")
    for metric in asked.values():
        require("outside" not in metric.images, "eval.metrics",
                f"metrics without {metric.name!r}, which needs other images: introvae_jax.evaluate")  # fmt: skip
    require(values["eval.best"] in ("", *metrics), "eval.best", "'' or one of config.eval.metrics")
    if best:
        name = asked[best].name
        require(asked[best].ranks, "eval.best", f"a metric that can rank checkpoints; {name} cannot")
    if values["eval.every"]:
        require(len(metrics) > 0, "eval.metrics", "one or more where eval.every is above 0")
        require(values["data.source"] != "density", "eval.every", "0 for points, which benchmarks/toy2d.py scores")


def _check_residual(values: dict[str, Any], require: Callable[[bool, str, str], None]) -> None:
    """Checks the values of the residual networks and of their images."""
    try:
        crop_box(values["data.crop"], 1, 1)
    except ValueError:
        require(False, "data.crop", CROPS)
    size, channels = values["data.size"], values["model.channels"]
    require(size in [2**k for k in range(4, 11)], "data.size", "a power of two from 16 to 1024")
    stages = int(math.log2(size / 4))
    require(len(channels) == stages, "model.channels",
            f"{stages} channel counts, log2(data.size / 4) for data.size = {size}, "
            f"for instance --config.model.channels=\"{_doubling(channels, stages)}\"")  # fmt: skip
    require(all(type(c) is int and 1 <= c <= MOST_CHANNELS for c in channels), "model.channels",
            f"whole numbers from 1 to {MOST_CHANNELS:,}")  # fmt: skip
    if values["model.norm"] == "group":
        require(all(c % GROUP_SIZE == 0 for c in channels), "model.channels",
                f"multiples of {GROUP_SIZE}, the group size of model.norm = 'group'")  # fmt: skip


def _doubling(channels: tuple[int, ...], stages: int) -> tuple[int, ...]:
    """Channel counts for `stages`: the first one of `channels`, then doubled up to 512, as in the paper."""
    first = channels[0] if channels and type(channels[0]) is int and channels[0] >= 1 else 32
    return tuple(min(first * 2**stage, max(first, 512)) for stage in range(stages))


def complete_stored(config: Any, place: str | os.PathLike[str]) -> dict[str, Any]:
    """Adds the network keys that are missing in the stored config of an older checkpoint, and validates all of them.

    place: the checkpoint, for errors. Other keys are not checked, because another version may have written them.
    Raises UserError if a value is missing or no network can be built from it.
    """
    if not isinstance(config, dict) or not all(isinstance(config.get(name), dict) for name in ("data", "model")):
        raise UserError(f"{place}: its config lacks the sections data and model")
    config = {**config, "model": {**NEWER, **config["model"]}}
    values = flatten({name: config[name] for name in ("data", "model")})

    def require(ok: bool, key: str, allowed: str) -> None:
        if not ok:
            found = f"{values[key]!r:.80}" if key in values else "nothing"
            raise UserError(f"{place}: its config has {found} for {key}: must be {allowed}")

    network = values.get("model.network", "")
    require(isinstance(network, str) and network in NETWORKS, "model.network", "one of " + ", ".join(NETWORKS))
    for key, kind in _STORED["points" if NETWORKS[network].of_points else "images"].items():
        require(type(values.get(key)) is kind, key, f"of type {kind.__name__}")
        require(key not in _CHOICES or values[key] in _CHOICES[key], key, f"one of {_CHOICES.get(key)}")
        require(key not in _AT_LEAST_ONE or values[key] >= 1, key, "1 or more")
        require(key not in _AT_MOST or values[key] <= _AT_MOST[key], key, f"{_AT_MOST.get(key, 0):,} or less")
    if NETWORKS[network].of_points:
        require(values["data.name"] in DENSITIES, "data.name", "one of " + ", ".join(DENSITIES))
    else:
        _check_residual(values, require)
    return config


def check_resume(stored: dict[str, Any], config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Raises UserError if `config` differs from the `stored` config of a run in a value that may not change.

    Keys that are not stored have their value in `BEFORE`. Other keys that only one of the two has are ignored, unless
    the run used a feature that this version no longer has.
    """
    old, new = BEFORE | flatten(stored), flatten(config)
    for key, unused in REMOVED.items():
        if old.get(key, unused) != unused:
            raise UserError(
                f"{workdir} was trained with config.{key} = {old[key]!r}, which this version no longer has. Resume it "
                "with the version that wrote it, or start over in another --workdir"
            )
    fixed = [key for key in sorted(old.keys() & new.keys()) if not key.startswith(MAY_CHANGE)]
    if new["optim.schedule"] == "cosine":
        fixed.append("steps")  # the learning rate at every step depends on it
    changed = [f"config.{k}: {old[k]!r} there, {new[k]!r} now" for k in fixed if old[k] != new[k]]
    if changed:
        raise UserError(
            f"{workdir} holds another experiment ({'; '.join(changed)}). "
            "Give this one its own --workdir, or set the values back"
        )


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens a nested config to {"data.size": 64, ...}. Lists, which JSON makes of tuples, become tuples again."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict | ml_collections.ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list | tuple) else value
    return flat


def to_dict(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Converts a config to nested dictionaries with values that JSON can represent."""
    return json.loads(json.dumps(config.to_dict()))
