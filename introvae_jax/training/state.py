"""The training state: plain arrays without a device axis, so that a checkpoint fits any number of devices."""

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp
import optax

from introvae_jax.trees import PyTree


class NetworkState(struct.PyTreeNode):
    """State of one network: parameters, optimizer state, exponential moving average (EMA) of the parameters."""

    params: PyTree
    opt_state: optax.OptState
    ema: PyTree

    @classmethod
    def create(cls, params: PyTree, optimizer: optax.GradientTransformation) -> "NetworkState":
        return cls(params, optimizer.init(params), jax.tree.map(jnp.copy, params))

    def update(
        self, grads: PyTree, optimizer: optax.GradientTransformation, step: jax.Array, ema_decay: float
    ) -> "NetworkState":
        """Applies one optimizer update and updates the EMA.

        The EMA decay is min(ema_decay, (1 + step) / (10 + step)): it starts low, so that the average forgets the
        initial parameters within a few steps.
        """
        updates, opt_state = optimizer.update(grads, self.opt_state, self.params)
        params = optax.apply_updates(self.params, updates)
        decay = jnp.minimum(ema_decay, (1.0 + step) / (10.0 + step))
        return NetworkState(params, opt_state, optax.incremental_update(params, self.ema, 1.0 - decay))


class State(struct.PyTreeNode):
    """step: steps taken, int32. key: base RNG key, raw uint32 [2]; the key of each draw is folded from it."""

    step: jax.Array
    key: jax.Array
    encoder: NetworkState
    decoder: NetworkState


def create(
    key: jax.Array,
    encoder: nn.Module,
    decoder: nn.Module,
    optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation],
    image_shape: tuple[int, ...],
) -> State:
    """Creates the initial state. key: a typed RNG key. image_shape: (height, width, channels), or (2,) for points."""
    key_encoder, key_decoder, key_train = jax.random.split(key, 3)
    encoder, decoder = encoder.clone(axis_name=None), decoder.clone(axis_name=None)  # no device axis here
    params_e = encoder.init(key_encoder, jnp.zeros((1, *image_shape)))["params"]
    params_d = decoder.init(key_decoder, jnp.zeros((1, decoder.z_dim)))["params"]
    return State(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(key_train),
        encoder=NetworkState.create(params_e, optimizers[0]),
        decoder=NetworkState.create(params_d, optimizers[1]),
    )
