"""The PyTorch step of the benchmarks is the alternating step of this package: losses and parameters in float64.

python -m pytest benchmarks    # needs PyTorch; not a part of the tests of the package
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from benchmarks import torch_introvae
from introvae_jax import objectives, parallel
from introvae_jax.torch_weights import mapping
from introvae_jax.training import state as state_lib
from introvae_jax.training import step as step_lib

CHANNELS, SIZE, Z, BATCH, STEPS, RATE = (8, 12, 12), 32, 6, 4, 3, 1e-3
WEIGHTS = {"alpha": 0.25, "alpha_d": 0.5, "beta": 0.5, "margin": 12.0}


def arrays(networks):
    """Of both networks, by the names of the released weights."""
    return {
        f"{name}.{key}": value.detach().numpy().copy()
        for name, network in zip(("encoder", "decoder"), networks, strict=True)
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def converted(networks):
    """{"encoder": params, "decoder": params} in this package's layout; mapping.variables would round to float32."""
    named = arrays(networks)
    high, low = ({k: v.astype(np.float32) for k, v in part.items()} for part in (named, named))
    low = {k: (v - high[k]).astype(np.float32) for k, v in named.items()}
    found = mapping.structure(named, "torch")
    parts = [mapping.variables(part, found.networks("sum"), found, "torch") for part in (high, low)]
    sums = jax.tree.map(lambda a, b: np.float64(a) + np.float64(b), *parts)
    return {name: part["params"] for name, part in sums.items()}, found


@pytest.mark.parametrize("tuned", [False, True])
def test_three_steps_equal_ours(tuned, monkeypatch):
    torch.manual_seed(0)
    networks = tuple(network.double() for network in torch_introvae.images(3, CHANNELS, Z, expand_equal=True))
    params, found = converted(networks)
    trainer = torch_introvae.Trainer(*networks, torch_introvae.Weights(**WEIGHTS), tuned=tuned, rate=RATE)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    with jax.enable_x64(True), monkeypatch.context() as patch:
        patch.setattr(jnp, "float32", jnp.float64)  # where the package says float32
        replicas = parallel.replicas(tuple(jax.devices()[:1]))
        ours = tuple(network.clone(dtype=jnp.float64) for network in found.networks("sum").values())
        optimizers = (optax.adam(RATE), optax.adam(RATE))
        state = state_lib.create(jax.random.key(0), *ours, optimizers, images.shape[1:])
        state = state.replace(
            encoder=state_lib.NetworkState.create(params["encoder"], optimizers[0]),
            decoder=state_lib.NetworkState.create(params["decoder"], optimizers[1]),
        )
        objective = objectives.build("introvae", {**WEIGHTS, "hinge": "batch"})
        step = jax.jit(
            step_lib.make_step(
                *ours, objective, optimizers, replicas, update_order="alternating", ema_decay=0.9, mirror=False,
                global_batch=BATCH,
            )
        )  # fmt: skip
        for _ in range(STEPS):
            batch = step_lib.draw_batch(state, jnp.asarray(images), Z, False, BATCH, replicas)
            x, eps, zp = (torch.tensor(np.asarray(v, np.float64)) for v in (batch.x, batch.eps, batch.zp))
            losses = trainer.step(x.permute(0, 3, 1, 2), eps, zp)
            state, terms = step(state, images)
            for name, loss in zip(("loss_encoder", "loss_decoder"), losses, strict=True):
                np.testing.assert_allclose(float(loss), float(terms[name]), rtol=1e-11)
        after, _ = converted(networks)
        for name, network in (("encoder", state.encoder), ("decoder", state.decoder)):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9), after[name], network.params
            )
            moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), params[name], network.params)
            assert max(jax.tree.leaves(moved)) > RATE
