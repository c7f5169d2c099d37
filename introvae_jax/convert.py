"""Converts released IntroVAE and Soft-IntroVAE weights (PyTorch) to a work directory. Usage:

    python -m introvae_jax.convert --weights=FILE.pth --workdir=RUN
    python -m introvae_jax.convert --weights=FILE.pth --workdir=RUN --config=configs/celebahq.py:256,released
    python -m introvae_jax.convert --weights=FILE.pth --workdir=RUN --family=soft_introvae

PyTorch is not needed, and nothing in the file is executed. The structure of the networks is inferred from the shapes of
the arrays. With --config, the two must agree; introvae_jax.main then continues training with the same --config and
--workdir. See docs/released_weights.md.
"""

from collections.abc import Sequence
import shlex

from absl import flags
from ml_collections import ConfigDict, config_flags

from introvae_jax import errors, progress

_WEIGHTS = flags.DEFINE_string("weights", None, "The released file: a state dict or whole networks, by torch.save.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory for the checkpoint; must have no checkpoints.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="The config for further training; by default configs/default.py with the sizes in the file."
)
_FAMILY = flags.DEFINE_enum(
    "family", "introvae", ["introvae", "soft_introvae"],
    "The code that wrote the weights. The files look alike, and the wrong family gives wrong images without an error.",
)  # fmt: skip


def main(_: Sequence[str]) -> None:
    """Converts the file that the flags name."""
    with progress.phase("importing JAX and its libraries"):  # imported here, so that --help and wrong flags are fast
        from introvae_jax.torch_weights import conversion

    if not _WEIGHTS.value or not _WORKDIR.value:
        raise errors.UserError("--weights and --workdir must not be empty")
    argument = (
        config_flags.get_config_filename(flags.FLAGS["config"]) if _CONFIG.value is not None else conversion.DEFAULT
    )
    config, told = conversion.convert(_WEIGHTS.value, _WORKDIR.value, family=_FAMILY.value, config=_CONFIG.value)
    workdir = f"--workdir={_WORKDIR.value}"
    print(
        f"{_WORKDIR.value}: checkpoint of step 0: {told}",
        "  " + shlex.join(["python", "-m", "introvae_jax.sample", workdir]),
        "  " + shlex.join(["python", "-m", "introvae_jax.main", f"--config={argument}", *_overrides(config), workdir]),
        sep="\n",
    )


def _overrides(config: ConfigDict) -> list[str]:
    """The flags that make introvae_jax.main build `config` from the --config file or the default one."""
    from introvae_jax import config as config_lib
    from introvae_jax.torch_weights import conversion

    if _CONFIG.value is not None:
        given = config_flags.get_override_values(flags.FLAGS["config"])
        return [conversion.flag(key, value) for key, value in given.items()]
    default, filled = config_lib.flatten(conversion.default_config()), config_lib.flatten(config)
    changed = [conversion.flag(key, value) for key, value in filled.items() if value != default[key]]
    return [*changed, "--config.data.path=DIR"]


if __name__ == "__main__":
    flags.mark_flags_as_required(["weights", "workdir"])
    errors.run(main)
