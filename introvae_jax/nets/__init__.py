"""The registry of networks. To add a network, add its file and an entry to NETWORKS.

A network is a pair of Flax modules: an encoder x [B, ...] -> mu, logvar [B, Z] and a decoder z [B, Z] -> x [B, ...].
Both have the fields `z_dim` and `axis_name`, the device axis for batch statistics. Both take `use_running_average`:
True uses the BatchNorm statistics of the checkpoint instead of those of the batch.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax import linen as nn

from introvae_jax.nets import mlp, residual


class Network(NamedTuple):
    """build: (`config.model`, `config.data`, axis_name) -> encoder, decoder. of_points: True for points, not images."""

    build: Callable[[Mapping[str, Any], Mapping[str, Any], str | None], tuple[nn.Module, nn.Module]]
    of_points: bool = False


NETWORKS = {"residual": Network(residual.build), "mlp": Network(mlp.build, of_points=True)}
