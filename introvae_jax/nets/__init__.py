"""The networks by name; adding one means adding its file and its line here. All are functions of (variables, inputs).

A network is a pair of Flax modules with the fields `z_dim` and `axis_name` (over which batch statistics are taken):
an encoder x [B, ...] -> mu, logvar [B, Z] and a decoder z [B, Z] -> x [B, ...]. Both take `use_running_average`: True
where each image is treated by itself, with statistics of the checkpoint.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax import linen as nn

from introvae_jax.nets import mlp, residual


class Network(NamedTuple):
    """build: (`config.model`, `config.data`, axis_name) -> encoder and decoder. of_points: not of images."""

    build: Callable[[Mapping[str, Any], Mapping[str, Any], str | None], tuple[nn.Module, nn.Module]]
    of_points: bool = False


NETWORKS = {"residual": Network(residual.build), "mlp": Network(mlp.build, of_points=True)}
