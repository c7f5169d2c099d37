"""The step of the released IntroVAE code in PyTorch, written from its description, for the benchmarks to compare with.

It updates alternately, as algorithm 1 of the paper and as the authors' code: the decoder's KL terms see the updated
encoder, and the decoder's gradient of the reconstruction error is that of the first backward pass. "released" computes
what the authors' code computes, in float32. "tuned" is the same step with channels_last, torch.compile, fused Adam,
bfloat16 by autocast, and without gradients that are thrown away. Both stop the second backward pass at the latents of
the reconstructions: beyond them the authors' code computes gradients that it discards, which today's PyTorch refuses
because the encoder has changed. benchmarks/test_torch_introvae.py compares three steps with ours in float64.
"""

from collections.abc import Callable
import dataclasses
import itertools

import torch
from torch import nn
import torch._functorch.config  # torch.compile imports it late
from torch.nn import functional as F


class Block(nn.Module):
    """conv - BatchNorm - LeakyReLU - conv, plus the input, BatchNorm of the sum, LeakyReLU."""

    def __init__(self, channels_in: int, channels: int, expand: bool = False):
        super().__init__()
        expand = expand or channels_in != channels
        self.conv_expand = nn.Conv2d(channels_in, channels, 1, bias=False) if expand else None
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.conv_expand is None else self.conv_expand(x)
        y = self.conv2(F.leaky_relu(self.bn1(self.conv1(x)), 0.2))
        return F.leaky_relu(self.bn2(y + identity), 0.2)


class Encoder(nn.Module):
    """Images [B, C, S, S] -> mu, logvar, each [B, Z]. Names of arrays are those of the released weights."""

    def __init__(self, image_channels: int, channels: tuple[int, ...], z_dim: int, expand_equal: bool = False):
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(image_channels, channels[0], 5, padding=2, bias=False))
        self.main.append(nn.BatchNorm2d(channels[0])).append(nn.LeakyReLU(0.2)).append(nn.AvgPool2d(2))
        size = 2 * 2 ** len(channels)
        for before, after in itertools.pairwise(channels):
            self.main.add_module(f"res_in_{size}", Block(before, after, expand_equal))
            self.main.add_module(f"down_to_{size // 2}", nn.AvgPool2d(2))
            size //= 2
        self.main.add_module(f"res_in_{size}", Block(channels[-1], channels[-1]))
        self.fc = nn.Linear(channels[-1] * 4 * 4, 2 * z_dim)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mu, logvar = self.fc(self.main(x).flatten(1)).chunk(2, dim=1)
        return mu, logvar


class Decoder(nn.Module):
    """Latents [B, Z] -> images [B, C, S, S]."""

    def __init__(self, image_channels: int, channels: tuple[int, ...], z_dim: int, expand_equal: bool = False):
        super().__init__()
        before, size = channels[-1], 4
        self.fc = nn.Sequential(nn.Linear(z_dim, before * 4 * 4), nn.ReLU())
        self.main = nn.Sequential()
        for after in reversed(channels):
            self.main.add_module(f"res_in_{size}", Block(before, after, expand_equal and size > 4))
            self.main.add_module(f"up_to_{2 * size}", nn.Upsample(scale_factor=2, mode="nearest"))
            before, size = after, 2 * size
        self.main.add_module(f"res_in_{size}", Block(before, before))
        self.main.add_module("predict", nn.Conv2d(before, image_channels, 5, padding=2))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.main(self.fc(z).unflatten(1, (-1, 4, 4)))


class Perceptron(nn.Module):
    """`depth` hidden layers with ReLU between points or latents; an encoder's output is split in two."""

    def __init__(self, features_in: int, width: int, depth: int, features: int, *, encodes: bool):
        super().__init__()
        widths = [features_in, *[width] * depth]
        layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.main, self._encodes = nn.Sequential(*layers, nn.Linear(width, features)), encodes

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        y = self.main(x)
        return y.chunk(2, dim=1) if self._encodes else y


@dataclasses.dataclass(frozen=True)
class Weights:
    """As in objectives/introvae.py; the hinge is that of the batch's mean. beta is twice the released weight_rec."""

    alpha: float
    alpha_d: float
    beta: float
    margin: float


def kl(mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Mean KL to the prior."""
    mu, logvar = (v.float() if v.dtype == torch.bfloat16 else v for v in (mu, logvar))
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1).mean()


class Trainer:
    """Both networks, their Adam, and one step. tuned: without the encoder's gradients of the decoder's loss."""

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, weights: Weights, *,
        tuned: bool = False, autocast: bool = False, rate: float = 2e-4,
    ):  # fmt: skip
        self._encoder, self._decoder, self._weights, self._tuned = encoder, decoder, weights, tuned
        self._optimizers = [
            torch.optim.Adam(network.parameters(), lr=rate, fused=True if tuned else None)
            for network in (encoder, decoder)
        ]
        device = next(encoder.parameters()).device.type
        self._context: Callable = lambda: torch.autocast(device, torch.bfloat16, enabled=autocast)

    def step(self, x: torch.Tensor, eps: torch.Tensor, zp: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step on images [B, C, S, S] in [0, 1], or points [B, 2], and noise [B, Z]; both losses."""
        encoder, decoder, weights = self._encoder, self._decoder, self._weights
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        with self._context():
            mu, logvar = encoder(x)
            z = mu + (0.5 * logvar).exp() * eps
            latents = z.detach().requires_grad_()
            rec, fake = decoder(latents), decoder(zp)
            error = weights.beta * 0.5 * (rec - x).square().flatten(1).sum(1).mean()
            hinges = [F.relu(weights.margin - kl(*encoder(image.detach()))) for image in (rec, fake)]
            kl_real, loss_hinge = kl(mu, logvar), weights.alpha * sum(hinges)
        (error + loss_hinge).backward(retain_graph=True)
        # The encoder's other half: the error reaches it through the latents.
        torch.autograd.backward((kl_real, z), (None, latents.grad))
        self._optimizers[0].step()

        encoder.requires_grad_(not self._tuned)
        with self._context():
            loss_kl = weights.alpha_d * sum(kl(*encoder(image)) for image in (rec, fake))
        loss_kl.backward()
        encoder.requires_grad_(True)
        self._optimizers[1].step()
        return (kl_real + loss_hinge + error).detach(), (loss_kl + error).detach()


def images(
    image_channels: int, channels: tuple[int, ...], z_dim: int, expand_equal: bool = False
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of images. expand_equal: as in introvae_jax.nets.residual."""
    options = image_channels, channels, z_dim, expand_equal
    return Encoder(*options), Decoder(*options)


def points(width: int, depth: int, z_dim: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of points on a plane."""
    return (
        Perceptron(2, width, depth, 2 * z_dim, encodes=True),
        Perceptron(z_dim, width, depth, 2, encodes=False),
    )


def trainer(networks: tuple[nn.Module, nn.Module], weights: Weights, device: str, kind: str) -> Trainer:
    """Of networks that are given away. kind: "released", "tuned", or "tuned bfloat16"."""
    torch.backends.cudnn.benchmark = True  # as the authors' code
    networks, tuned = tuple(network.to(device) for network in networks), kind.startswith("tuned")
    if tuned:
        torch._functorch.config.donated_buffer = False  # two losses go back through what a compiled network stored
        networks = tuple(torch.compile(network.to(memory_format=torch.channels_last)) for network in networks)
    return Trainer(*networks, weights, tuned=tuned, autocast=kind.endswith("bfloat16"))
