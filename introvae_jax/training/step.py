"""One training step: both losses, both gradients, both updates (Algorithm 1 of IntroVAE, arXiv 1807.06358)."""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
import optax

from introvae_jax.objectives.base import Batch, Objective, Terms
from introvae_jax.parallel import Replicas
from introvae_jax.training.state import State
from introvae_jax.trees import PyTree

UPDATE_ORDERS = ("alternating", "simultaneous")

# Folded into the key, so that no two draws of a step share a key.
EPS, PRIOR, MIRROR, CALIBRATION, DEQUANTIZE, EPS_REC, EPS_FAKE = range(7)
NEXT_PRIOR = 16  # plus the index of the additional decoder update


def draw_key(state: State, purpose: int) -> jax.Array:
    """The RNG key of one draw of this step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step), purpose)


def draw_latents(state: State, purpose: int, shape: tuple[int, int], local_batch: int, replicas: Replicas) -> jax.Array:
    """Standard normal noise: this device's rows of [global batch, Z]. Independent of the number of devices."""
    return replicas.shard(jax.random.normal(draw_key(state, purpose), shape), local_batch)


def draw_batch(
    state: State,
    images: jax.Array,
    z_dim: int,
    mirror: bool,
    global_batch: int,
    replicas: Replicas,
    dequantize: bool = False,
) -> Batch:
    """Draws the noise of this step and converts its images.

    images: uint8 [B, H, W, C], the rows of this device. They become v / 255, or, with `dequantize`, (v + u) / 256 with
    u from U[0, 1). Points [B, 2] are floats and stay unchanged. Noise is drawn for the global batch and sliced, so that
    it does not depend on the number of devices.
    """
    local = lambda x: replicas.shard(x, images.shape[0])  # noqa: E731
    normal = lambda purpose: draw_latents(  # noqa: E731
        state, purpose, (global_batch, z_dim), images.shape[0], replicas
    )
    x = images.astype(jnp.float32) / 255.0 if images.dtype == jnp.uint8 else images
    if dequantize:
        key = draw_key(state, DEQUANTIZE)  # one per image: the noise of the global batch takes too much memory
        keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(local(jnp.arange(global_batch)))
        noise = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:]))(keys)
        x = (images.astype(jnp.float32) + noise) / 256.0
    if mirror:
        flip = local(jax.random.bernoulli(draw_key(state, MIRROR), shape=(global_batch,)))
        x = jnp.where(flip[:, None, None, None], x[:, :, ::-1], x)
    return Batch(x, eps=normal(EPS), zp=normal(PRIOR), eps_rec=normal(EPS_REC), eps_fake=normal(EPS_FAKE))


def make_step(
    encoder: nn.Module,
    decoder: nn.Module,
    objective: Objective,
    optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation],
    replicas: Replicas,
    *,
    update_order: str,
    ema_decay: float,
    mirror: bool,
    global_batch: int,
    dequantize: bool = False,
    decoder_updates: int = 1,
    share_backward: bool = True,
) -> Callable[[State, jax.Array], tuple[State, Terms]]:
    """Returns the pure function (state, images uint8 [B, H, W, C] or points) -> (state, terms); `replicas` maps it.

    update_order: "alternating", the decoder's loss uses the updated encoder (algorithm 1), or "simultaneous", both
    gradients are taken at the same point. The compiler merges the operations that the two value_and_grad calls have in
    common; tests/training/test_compiled.py counts them.
    decoder_updates: decoder updates per encoder update. The first one uses the encoder's prior samples, each further
    one draws new ones.
    share_backward: True to share backward passes between the two losses too (objectives/shared_gradient.py).
    """
    bind = Partial if share_backward else functools.partial

    def encode(params: PyTree, x: jax.Array) -> Any:
        return encoder.apply({"params": params}, x)

    def decode(params: PyTree, z: jax.Array) -> Any:
        return decoder.apply({"params": params}, z)

    def step(state: State, images: jax.Array) -> tuple[State, Terms]:
        # X <- mini-batch; Zp <- samples of the prior N(0, I)
        batch = draw_batch(state, images, decoder.z_dim, mirror, global_batch, replicas, dequantize)

        # Z <- E(X); Xr <- D(Z), Xp <- D(Zp); L_AE; E(ng(Xr)), E(ng(Xp)); L_E, equation 11
        def encoder_loss(params: PyTree) -> tuple[jax.Array, tuple[jax.Array, Terms]]:
            networks = bind(encode, params), bind(decode, state.decoder.params)
            return objective.encoder_loss(*networks, batch, replicas.mean)

        (loss_e, (z, terms)), grads_e = jax.value_and_grad(encoder_loss, has_aux=True)(state.encoder.params)
        grads_e = replicas.average(grads_e)
        # phi_E <- phi_E - eta * gradient of L_E, by Adam
        new_encoder = state.encoder.update(grads_e, optimizers[0], state.step, ema_decay)
        # Algorithm 1 encodes Xr and Xp with the updated encoder; "simultaneous" is this project's cheaper variant.
        encoder_of_d = new_encoder if update_order == "alternating" else state.encoder

        # E(Xr), E(Xp) without ng; L_D, equation 12
        def decoder_loss(params: PyTree, batch: Batch) -> tuple[jax.Array, Terms]:
            networks = bind(encode, encoder_of_d.params), bind(decode, params)
            return objective.decoder_loss(*networks, batch, z, replicas.mean)

        new_decoder = state.decoder
        for update in range(decoder_updates):
            if update > 0:
                shape = (global_batch, decoder.z_dim)
                zp = draw_latents(state, NEXT_PRIOR + update, shape, images.shape[0], replicas)
                batch = batch.replace(zp=zp)
            (loss_d, terms_d), grads_d = jax.value_and_grad(decoder_loss, has_aux=True)(new_decoder.params, batch)
            grads_d = replicas.average(grads_d)
            # theta_D <- theta_D - eta * gradient of L_D, by Adam
            new_decoder = new_decoder.update(grads_d, optimizers[1], state.step, ema_decay)
        terms = {
            **terms, **terms_d, "loss_encoder": loss_e, "loss_decoder": loss_d,
            "grad_norm_encoder": optax.tree.norm(grads_e), "grad_norm_decoder": optax.tree.norm(grads_d),
        }  # fmt: skip
        return state.replace(step=state.step + 1, encoder=new_encoder, decoder=new_decoder), terms

    return step
