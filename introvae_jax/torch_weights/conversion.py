"""Converts a released weights file to a work directory with a checkpoint of step 0."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shlex
from typing import Any

import jax
from ml_collections import ConfigDict

from introvae_jax import bucket, disk, errors, hashes, parallel, progress
from introvae_jax import config as config_lib
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.experiment import Experiment
from introvae_jax.torch_weights import mapping, torch_file
from introvae_jax.training import resume, state

BLOCK_NORM = {"introvae": "sum", "soft_introvae": "branch"}
DEFAULT = "configs/default.py"


def convert(
    weights: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    family: str = "introvae",
    config: ConfigDict | None = None,
) -> tuple[ConfigDict, str]:
    """Writes a work directory with the weights; returns the config of its checkpoint, and one line about the networks.

    family: "introvae" or "soft_introvae". config: None takes the default one with the sizes found in the file.
    Raises UserError if the file is not a weights file, does not fit `config`, or the directory is in use.
    """
    weights, workdir = disk.expand(weights), disk.resolve(workdir)
    if bucket.is_bucket(workdir):
        bucket.require(workdir, writes=True)
    _refuse_used(workdir)
    with progress.phase(f"reading {weights}"):
        named = mapping.named_arrays(torch_file.read(weights), str(weights))
    found = mapping.structure(named, str(weights))
    needed = _needed(found, family)
    if config is None:
        config = default_config()
        # A warm-up would damage trained weights.
        config.update_from_flattened_dict({**needed, "objective.name": family, "objective.warmup_steps": 0})
    if config.model.prior != "normal" or config.data.source == "density":
        raise errors.UserError(
            f"{weights}: holds image networks of IntroVAE or Soft-IntroVAE; --config describes others"
        )
    config_lib.validate(config)
    _require_agreement(config, needed, weights)
    with progress.phase("converting the weights"):
        converted = mapping.variables(named, found.networks(BLOCK_NORM[family]), found, str(weights))
    try:
        with _locked(workdir):
            _refuse_used(workdir)
            write(
                config,
                converted,
                workdir,
                {"file": weights.name, "sha256": hashes.sha256_file(weights), "family": family},
            )
    except OSError as error:
        raise errors.UserError(f"--workdir={workdir}: {error.strerror or error}") from error
    return config, _describe(found, family, converted)


def write(config: ConfigDict, converted: dict[str, Any], workdir: pathlib.Path, origin: dict[str, str]) -> None:
    """Writes a checkpoint of step 0 to `workdir`: weights, EMA equal to the weights, and initial optimizer states.

    converted: as `mapping.variables` returns it. origin: metadata of the file, for the record of the run. Raises
    UserError or OSError if it cannot be written.
    """
    experiment = Experiment(config, parallel.replicas())

    @jax.jit  # skips the initial weights, which are replaced
    def begin(params: dict[str, Any]) -> state.State:
        networks = zip(("encoder", "decoder"), experiment.optimizers, strict=True)
        return experiment.init_state().replace(
            **{name: state.NetworkState.create(params[name], optimizer) for name, optimizer in networks}
        )

    with progress.phase("creating the state"):
        begun = begin({name: part["params"] for name, part in converted.items()})
    # PyTorch's running averages are over real, reconstructed and sampled images together.
    stats = {name: part["batch_stats"] for name, part in converted.items()}
    statistics = {"encoder": stats["encoder"], "decoder": stats["decoder"], "decoder_rec": stats["decoder"]}
    with progress.phase("writing the checkpoint"):
        checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep)
        checkpoints.save(
            0, begun, {"ema": statistics, "raw": statistics},
            resume.run_record(config, data_identity="") | {"converted_from": origin},
        )  # fmt: skip
        checkpoints.wait()
        checkpoints.close()


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the same lock as training. A bucket has no locks."""
    if bucket.is_bucket(workdir):
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with disk.file_lock(workdir / ".lock", "converting weights"):
        yield


def _refuse_used(workdir: pathlib.Path) -> None:
    if (workdir / "checkpoints").is_dir() and (steps := Checkpoints(workdir).steps()):
        raise errors.UserError(f"{workdir}: has checkpoints already (step {steps[-1]}); choose another --workdir")


def _needed(found: mapping.Structure, family: str) -> dict[str, Any]:
    """The config values that these networks need."""
    return {
        "data.size": found.image_size, "data.channels": found.image_channels, "model.network": "residual",
        "model.channels": found.channels, "model.z_dim": found.z_dim, "model.prior": "normal",
        "model.norm": "batch", "model.block_norm": BLOCK_NORM[family], "model.expand_equal": found.expand_equal,
    }  # fmt: skip


def default_config() -> ConfigDict:
    """The config of configs/default.py. Raises UserError if the file does not exist."""
    try:
        from configs import default
    except ImportError as error:
        raise errors.UserError(
            f"{DEFAULT} is not here: run this in the repository's folder, or name a file with --config"
        ) from error
    return default.get_config()


def _require_agreement(config: ConfigDict, needed: dict[str, Any], weights: pathlib.Path) -> None:
    there = config_lib.flatten(config)
    wrong = {key: value for key, value in needed.items() if there[key] != value}
    if wrong:
        told = "; ".join(f"config.{key} = {there[key]!r}, and {value!r} in the file" for key, value in wrong.items())
        raise errors.UserError(
            f"{weights}: the networks differ from the config ({told}). Choose the experiment and --family that fit, "
            f"or add {shlex.join(flag(key, value) for key, value in wrong.items())}"
        )


def _describe(found: mapping.Structure, family: str, converted: dict[str, Any]) -> str:
    count = {name: sum(x.size for x in jax.tree.leaves(part["params"])) for name, part in converted.items()}
    extra = " (1x1 convolutions between equal ones)" if found.expand_equal else ""
    return (
        f"{family}, {found.image_size}x{found.image_size}x{found.image_channels}, z {found.z_dim}, "
        f"channels {' '.join(map(str, found.channels))}{extra}; "
        f"encoder {count['encoder']:,} and decoder {count['decoder']:,} parameters"
    )


def flag(key: str, value: Any) -> str:
    """The flag of a config value."""
    return f"--config.{key}={value}"
