"""IntroVAE in PyTorch, written from the paper and published descriptions, for benchmarks/train_step.py to compare with.

Both forms take the simultaneous step: both losses see the same encoder, and both updates come last. The authors' code
updates alternately: its decoder's loss encodes the generated images again with the updated encoder. `plain`: each
backward pass goes through everything that it reaches. `tuned`: the same losses with channels_last, torch.compile,
bfloat16 by autocast, and without unused gradients.
"""

from collections.abc import Callable
import dataclasses
import itertools

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """conv - BatchNorm - LeakyReLU - conv, plus the input, BatchNorm of the sum, LeakyReLU."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        different = channels_in != channels
        self.expand = nn.Conv2d(channels_in, channels, 1, bias=False) if different else nn.Identity()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(F.leaky_relu(self.norm1(self.conv1(x)), 0.2))
        return F.leaky_relu(self.norm2(y + self.expand(x)), 0.2)


class Encoder(nn.Module):
    """Images [B, C, S, S] -> mu, logvar, each [B, Z]."""

    def __init__(self, image_channels: int, channels: tuple[int, ...], z_dim: int):
        super().__init__()
        first, last = channels[0], channels[-1]
        layers = [nn.Conv2d(image_channels, first, 5, padding=2, bias=False), nn.BatchNorm2d(first)]
        layers += [nn.LeakyReLU(0.2), nn.AvgPool2d(2)]
        for before, after in itertools.pairwise(channels):
            layers += [Block(before, after), nn.AvgPool2d(2)]
        self.main = nn.Sequential(*layers, Block(last, last), nn.Flatten(), nn.Linear(last * 4 * 4, 2 * z_dim))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mu, logvar = self.main(x).float().chunk(2, dim=1)
        return mu, logvar


class Decoder(nn.Module):
    """Latents [B, Z] -> images [B, C, S, S]."""

    def __init__(self, image_channels: int, channels: tuple[int, ...], z_dim: int):
        super().__init__()
        before = channels[-1]
        self.project = nn.Sequential(nn.Linear(z_dim, before * 4 * 4), nn.ReLU(), nn.Unflatten(1, (before, 4, 4)))
        layers = []
        for after in reversed(channels):
            layers += [Block(before, after), nn.Upsample(scale_factor=2, mode="nearest")]
            before = after
        self.main = nn.Sequential(*layers, Block(before, before), nn.Conv2d(before, image_channels, 5, padding=2))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.main(self.project(z)).float()


class Perceptron(nn.Module):
    """`depth` hidden layers with ReLU between points or latents; an encoder's output is split in two."""

    def __init__(self, features_in: int, width: int, depth: int, features: int, *, encodes: bool):
        super().__init__()
        widths = [features_in, *[width] * depth]
        layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.main, self._encodes = nn.Sequential(*layers, nn.Linear(width, features)), encodes

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        y = self.main(x).float()
        return y.chunk(2, dim=1) if self._encodes else y


@dataclasses.dataclass(frozen=True)
class Weights:
    """As in objectives/introvae.py; the hinge is that of the batch's mean."""

    alpha: float
    alpha_d: float
    beta: float
    margin: float


def kl(mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Mean KL to the prior."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1).mean()


class Trainer:
    """Both networks, their Adam, and one step. tuned: without the gradients that nobody uses."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, weights: Weights, *, tuned: bool, autocast: bool):
        self._encoder, self._decoder, self._weights, self._tuned = encoder, decoder, weights, tuned
        self._optimizers = [torch.optim.Adam(network.parameters(), lr=2e-4) for network in (encoder, decoder)]
        device = next(encoder.parameters()).device.type
        self._context: Callable = lambda: torch.autocast(device, torch.bfloat16, enabled=autocast)

    def step(self, x: torch.Tensor, eps: torch.Tensor, zp: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step on images [B, C, S, S] in [0, 1], or points [B, 2], and noise [B, Z]; both losses."""
        encoder, decoder, weights = self._encoder, self._decoder, self._weights
        theirs = [list(network.parameters()) for network in (encoder, decoder)]
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        with self._context():
            mu, logvar = encoder(x)
            rec, fake = decoder(mu + (0.5 * logvar).exp() * eps), decoder(zp)
            error = weights.beta * 0.5 * (rec - x).square().flatten(1).sum(1).mean()
            hinges = [F.relu(weights.margin - kl(*encoder(image.detach()))) for image in (rec, fake)]
            loss_e = kl(mu, logvar) + weights.alpha * sum(hinges) + error
        loss_e.backward(retain_graph=True, inputs=theirs[0] if self._tuned else None)
        grads = [p.grad for p in theirs[0]]
        for p in (*theirs[0], *theirs[1]):
            p.grad = None
        with self._context():
            loss_d = weights.alpha_d * sum(kl(*encoder(image)) for image in (rec, fake)) + error
        loss_d.backward(inputs=theirs[1] if self._tuned else None)
        for p, grad in zip(theirs[0], grads, strict=True):
            p.grad = grad
        for optimizer in self._optimizers:
            optimizer.step()
        return loss_e.detach(), loss_d.detach()


def images(image_channels: int, channels: tuple[int, ...], z_dim: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of images."""
    return Encoder(image_channels, channels, z_dim), Decoder(image_channels, channels, z_dim)


def points(width: int, depth: int, z_dim: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of points on a plane."""
    return (
        Perceptron(2, width, depth, 2 * z_dim, encodes=True),
        Perceptron(z_dim, width, depth, 2, encodes=False),
    )


def trainer(networks: tuple[nn.Module, nn.Module], weights: Weights, device: str, kind: str) -> Trainer:
    """Of networks that are given away. kind: "plain", "tuned", or either with " bfloat16" behind."""
    networks, tuned = tuple(network.to(device) for network in networks), kind.startswith("tuned")
    if tuned:
        torch._functorch.config.donated_buffer = False  # two losses go back through what a compiled network stored
        networks = tuple(torch.compile(network.to(memory_format=torch.channels_last)) for network in networks)
    return Trainer(*networks, weights, tuned=tuned, autocast=kind.endswith("bfloat16"))
