"""Makes tests/nets/torch_precision.json: how far PyTorch's float32 gradients are from its float64 ones.

    python -m tests.nets.make_precision_fixtures

Needs torch, which the tests do not. For each objective the median over the seeds of `precision.py` of the relative
error of the encoder's and of the decoder's gradient, with the networks of benchmarks/torch_introvae.py as PyTorch
initialises them. Both gradients are taken at the same point.
"""

import copy
import json
import pathlib

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks import torch_introvae
from tests.nets import precision

GOLDEN = pathlib.Path(__file__).with_name("torch_precision.json")
S = precision.SETTINGS


def kl(mu, logvar):
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)


def half_squares(x, copies):
    return 0.5 * (copies - x).square().flatten(1).sum(1)


def sample(moments, eps):
    return moments[0] + (0.5 * moments[1]).exp() * eps


def vae(encode, decode, x, noise):
    moments = encode(x)
    error = S["beta"] * half_squares(x, decode(sample(moments, noise[0]))).mean()
    return S["beta_kl"] * kl(*moments).mean() + error, error


def introvae(encode, decode, x, noise):
    loss_e, loss_d = vae(encode, decode, x, noise)
    rec = decode(sample(encode(x), noise[0]))
    for image in (rec, decode(noise[1])):
        loss_e = loss_e + S["alpha"] * F.relu(S["margin"] - kl(*encode(image.detach())).mean())
        loss_d = loss_d + S["alpha_d"] * kl(*encode(image)).mean()
    return loss_e, loss_d


def soft_introvae(encode, decode, x, noise):
    loss_e, loss_d = vae(encode, decode, x, noise)
    rec = decode(sample(encode(x), noise[0]))
    scale = 1 / x[0].numel()
    for image, eps in ((rec, noise[2]), (decode(noise[1]), noise[3])):
        constant = image.detach()
        moments = encode(constant)
        energy = S["beta"] * half_squares(constant, decode(sample(moments, eps))) + S["beta_neg"] * kl(*moments)
        loss_e = loss_e + 0.25 / scale * (-2 * scale * energy).exp().mean()
        loss_d = loss_d + 0.5 * S["beta_kl"] * kl(*encode(image)).mean()
    return loss_e, loss_d


def age(encode, decode, x, noise):
    unit = lambda v: F.normalize(v, dim=1)  # noqa: E731
    latents = lambda image: unit(encode(image)[0])  # noqa: E731

    def kl_of_batch(z):
        return kl(z.mean(0)[None], z.var(0, correction=0).log()[None]).mean() / z.shape[1]

    z, fake, prior = latents(x), decode(unit(noise[1])), unit(noise[1])
    error = (decode(z) - x).abs().flatten(1).mean(1).mean()
    loss_e = kl_of_batch(z) - kl_of_batch(latents(fake.detach())) + S["match_x"] * error
    again = latents(fake)
    return loss_e, kl_of_batch(again) + S["match_z"] * (1 - (again * prior).sum(1).mean())


def gradients(loss, networks, x, noise):
    """Two lists of arrays, one of each network."""
    losses = loss(*networks, x, noise)
    grads = [
        torch.autograd.grad(value, list(network.parameters()), retain_graph=True)
        for value, network in zip(losses, networks, strict=True)
    ]
    return [[grad.numpy() for grad in arrays] for arrays in grads]


def errors(loss):
    rows = []
    for seed in precision.SEEDS:
        torch.manual_seed(seed)
        networks = torch_introvae.images(3, precision.CHANNELS, precision.Z)
        images, noise = map(torch.from_numpy, precision.draw(seed))
        images = images.permute(0, 3, 1, 2).contiguous()
        exact = gradients(loss, [copy.deepcopy(n).double() for n in networks], images.double(), noise.double())
        coarse = gradients(loss, networks, images, noise)
        rows.append([precision.relative_error(c, e) for c, e in zip(coarse, exact, strict=True)])
    print(loss.__name__, np.array(rows))
    return dict(zip(("encoder", "decoder"), map(float, np.median(rows, axis=0)), strict=True))


def main():
    golden = {name: errors(globals()[name]) for name in precision.OBJECTIVES}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    print(GOLDEN.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
