"""Released IntroVAE and Soft-IntroVAE weights (PyTorch) -> a work directory. Usage:

    python -m introvae_jax.convert --weights=FILE.pth --workdir=RUN
    python -m introvae_jax.convert --weights=FILE.pth --workdir=RUN --config=configs/celebahq.py:256,released
    python -m introvae_jax.convert --weights=FILE.pth --workdir=RUN --family=soft_introvae

The file is read without PyTorch, and nothing in it is run. The networks' structure is found from its arrays; with
--config they must agree with it, and introvae_jax.main trains on with the same --config and --workdir.
docs/released_weights.md tells more.
"""

import hashlib
import os
import pathlib
import shlex
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from introvae_jax import errors

if TYPE_CHECKING:
    from introvae_jax.released import mapping

_WEIGHTS = flags.DEFINE_string("weights", None, "The released file: a state dict or whole networks, by torch.save.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the checkpoint goes; one without checkpoints.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="The experiment to train on with; configs/default.py with the sizes found, without one."
)
_FAMILY = flags.DEFINE_enum(
    "family", "introvae", ["introvae", "soft_introvae"],
    "Whose networks these are. The files look the same, and the wrong one gives wrong images without an error.",
)  # fmt: skip

DEFAULT = "configs/default.py"
BLOCK_NORM = {"introvae": "sum", "soft_introvae": "branch"}


def main(_) -> None:
    """Converts the file that the flags name."""
    if not _WEIGHTS.value or not _WORKDIR.value:
        raise errors.UserError("--weights and --workdir must not be empty")
    argument = config_flags.get_config_filename(flags.FLAGS["config"]) if _CONFIG.value is not None else DEFAULT
    path = argument.partition(":")[0]
    if _CONFIG.value is not None and not pathlib.Path(path).is_file():
        raise errors.UserError(f"--config={argument}: there is no file {path}; the experiments are in configs/")
    config, told = convert(_WEIGHTS.value, _WORKDIR.value, family=_FAMILY.value, config=_CONFIG.value)
    workdir = f"--workdir={_WORKDIR.value}"
    print(
        f"{_WORKDIR.value}: checkpoint of step 0: {told}",
        "  " + shlex.join(["python", "-m", "introvae_jax.sample", workdir]),
        "  " + shlex.join(["python", "-m", "introvae_jax.main", f"--config={argument}", *_overrides(config), workdir]),
        sep="\n",
    )


def convert(
    weights: str | os.PathLike,
    workdir: str | os.PathLike,
    *,
    family: str = "introvae",
    config: ConfigDict | None = None,
) -> tuple[ConfigDict, str]:
    """Writes a work directory with the weights; gives the config of its checkpoint, and what was found in a line.

    family: "introvae" or "soft_introvae". config: the default one with the sizes found, without one.
    Raises UserError if the file is not what it should be, does not fit `config`, or the directory is in use.
    """
    # Here, so that --help and a wrong flag answer at once.
    from introvae_jax import config as config_lib
    from introvae_jax import disk
    from introvae_jax.released import mapping, torch_file

    weights, workdir = disk.expand(weights), disk.expand(workdir)
    _refuse_used(workdir)
    named = mapping.named_arrays(torch_file.read(weights), str(weights))
    found = mapping.structure(named, str(weights))
    needed = _needed(found, family)
    if config is None:
        config = _default_config()
        # Weights that were trained to the end would lose by a warm-up.
        config.update_from_flattened_dict({**needed, "objective.name": family, "objective.warmup_steps": 0})
    config_lib.validate(config)
    _require_agreement(config, needed, weights)
    converted = mapping.variables(named, found.networks(BLOCK_NORM[family]), found, str(weights))
    try:
        write(config, converted, workdir, {"file": weights.name, "sha256": _sha256(weights), "family": family})
    except OSError as error:
        raise errors.UserError(f"--workdir={workdir}: {error.strerror or error}") from error
    return config, _describe(found, family, converted)


def write(config: ConfigDict, converted: dict[str, Any], workdir: pathlib.Path, origin: dict[str, str]) -> None:
    """A checkpoint of step 0 in `workdir`: the weights, also as their own average, and fresh optimizers.

    converted: as `mapping.variables` gives it. origin: what the run's record says about the file.
    """
    import jax
    import numpy as np

    from introvae_jax import model
    from introvae_jax.data import source
    from introvae_jax.training import parallel, run, state
    from introvae_jax.training.checkpoint import Checkpoints

    no_images = np.zeros((1, *model.example_shape(config)), np.uint8)  # nothing below looks at them
    training = run.Run(config, workdir, source.Splits(no_images, no_images, identity=""), parallel.replicas())

    @jax.jit  # which leaves out the drawing of weights that are replaced
    def begin(params: dict[str, Any]) -> state.State:
        players = zip(("encoder", "decoder"), training.optimizers, strict=True)
        return training.fresh_state().replace(**{name: state.Player.create(params[name], opt) for name, opt in players})

    begun = begin({name: part["params"] for name, part in converted.items()})
    # The running averages know no kinds of pass: they saw real, reconstructed and sampled images alike.
    stats = {name: part["batch_stats"] for name, part in converted.items()}
    statistics = {"encoder": stats["encoder"], "decoder": stats["decoder"], "decoder_rec": stats["decoder"]}
    checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep)
    checkpoints.save(
        0, begun, {"ema": statistics, "raw": statistics},
        training.record() | {"converted_from": origin},
    )  # fmt: skip
    checkpoints.wait()
    checkpoints.close()


def _refuse_used(workdir: pathlib.Path) -> None:
    from introvae_jax.training.checkpoint import Checkpoints

    if (workdir / "checkpoints").is_dir() and (steps := Checkpoints(workdir).steps()):
        raise errors.UserError(f"{workdir}: has checkpoints already (step {steps[-1]}); choose another --workdir")


def _needed(found: "mapping.Structure", family: str) -> dict[str, Any]:
    """What the config must say about networks like these."""
    return {
        "data.size": found.image_size, "data.channels": found.image_channels, "model.network": "residual",
        "model.channels": found.channels, "model.z_dim": found.z_dim, "model.prior": "normal",
        "model.norm": "batch", "model.block_norm": BLOCK_NORM[family], "model.expand_equal": found.expand_equal,
    }  # fmt: skip


def _default_config() -> ConfigDict:
    try:
        from configs import default
    except ImportError as error:
        raise errors.UserError(
            f"{DEFAULT} is not here: run this in the repository's folder, or name a file with --config"
        ) from error
    return default.get_config()


def _require_agreement(config: ConfigDict, needed: dict[str, Any], weights: pathlib.Path) -> None:
    from introvae_jax import config as config_lib

    there = config_lib.flatten(config)
    wrong = {key: value for key, value in needed.items() if there[key] != value}
    if wrong:
        told = "; ".join(f"config.{key} = {there[key]!r}, and {value!r} in the file" for key, value in wrong.items())
        raise errors.UserError(
            f"{weights}: another network than the config has ({told}). Choose the experiment and --family that fit, "
            f"or add {shlex.join(_flag(key, value) for key, value in wrong.items())}"
        )


def _describe(found: "mapping.Structure", family: str, converted: dict[str, Any]) -> str:
    import jax

    count = {name: sum(x.size for x in jax.tree.leaves(part["params"])) for name, part in converted.items()}
    extra = " (1x1 convolutions between equal ones)" if found.expand_equal else ""
    return (
        f"{family}, {found.image_size}x{found.image_size}x{found.image_channels}, z {found.z_dim}, "
        f"channels {' '.join(map(str, found.channels))}{extra}; "
        f"encoder {count['encoder']:,} and decoder {count['decoder']:,} parameters"
    )


def _overrides(config: ConfigDict) -> list[str]:
    """The flags with which the main job builds `config` from the file of --config or the default one."""
    if _CONFIG.value is not None:
        given = config_flags.get_override_values(flags.FLAGS["config"])
        return [_flag(key, value) for key, value in given.items()]
    from introvae_jax import config as config_lib

    default, filled = config_lib.flatten(_default_config()), config_lib.flatten(config)
    changed = [_flag(key, value) for key, value in filled.items() if value != default[key]]
    return [*changed, "--config.data.path=DIR"]


def _flag(key: str, value: Any) -> str:
    return f"--config.{key}={value}"


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    flags.mark_flags_as_required(["weights", "workdir"])
    errors.run(main)
