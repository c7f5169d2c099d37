"""The smallest run with checkpoints, and its start without the training."""

import functools

import jax

from configs import toy2d
from introvae_jax import parallel
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.data import source
from introvae_jax.errors import UserError
from introvae_jax.experiment import Experiment
from introvae_jax.training import resume as resume_lib


def config(steps=4, **optim):
    config = toy2d.get_config("8gaussians,vae")  # its networks compile fast
    config.steps, config.batch_size, config.optim.schedule = steps, 8, "constant"
    config.model.width, config.model.depth = 64, 1  # some arrays are too large to be stored inline
    config.log.every, config.log.pictures_every = 2, 1000
    config.checkpoint.every, config.checkpoint.keep = 2, 2
    config.optim.update(optim)
    return config


def resume(workdir, allow_restart=False):
    """The state from which a start of the run would train on."""
    experiment, identity = Experiment(config(), parallel.replicas()), source.open_splits(config().data).identity
    checkpoints = resume_lib.open_checkpoints(workdir, config().checkpoint.keep)
    try:
        return resume_lib.restore_or_init(experiment, identity, checkpoints, workdir, allow_restart)
    finally:
        checkpoints.close()


@functools.cache
def template():
    """The shapes of the state."""
    experiment = Experiment(config(), parallel.replicas())
    return experiment.replicas.replicate(jax.jit(experiment.init_state)())


def load(workdir, step=4):
    """The state of a checkpoint, or the UserError instead."""
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.restore_state(step, template())
    except UserError as error:
        return error
    finally:
        checkpoints.close()


def contents(folder):
    """The bytes of every file below a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
