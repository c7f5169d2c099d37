"""Makes tests/torch_weights/fixtures.tar.xz: tiny networks with the released names, saved by PyTorch in every form.

    python tests/torch_weights/make_fixtures.py

Needs torch, which the tests do not. The networks are written from the published facts (docs/released_weights.md);
weights, BatchNorm parameters and running statistics are random.
"""

import contextlib
import itertools
import pathlib
import sys
import tarfile
import tempfile
import types

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ARCHIVE = pathlib.Path(__file__).with_name("fixtures.tar.xz")
# name: image size, image channels, channels, 1x1 convolutions between equal channel counts, family
MODELS = {
    "introvae": (16, 3, (4, 4), False, "introvae"),
    "introvae_expand": (32, 1, (4, 6, 6), True, "introvae"),
    "soft_introvae": (16, 1, (4, 5), False, "soft_introvae"),
    "soft_introvae_expand": (16, 3, (4, 4), True, "soft_introvae"),
}
Z_DIM = 5
LEGACY = {"_use_new_zipfile_serialization": False}  # the container before torch 1.6

# Whole networks are saved with the path of their class; as in the released files it is of a module `networks`.
networks = types.ModuleType("networks")
sys.modules["networks"] = networks


def of_networks(cls):
    cls.__module__, cls.__qualname__ = "networks", cls.__name__
    setattr(networks, cls.__name__, cls)
    return cls


@of_networks
class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs, expand, family):
        super().__init__()
        self.family = family
        self.conv_expand = nn.Conv2d(inputs, outputs, 1, bias=False) if expand or inputs != outputs else None
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        identity = x if self.conv_expand is None else self.conv_expand(x)
        y = self.conv2(functional.leaky_relu(self.bn1(self.conv1(x)), 0.2))
        y = self.bn2(y) + identity if self.family == "soft_introvae" else self.bn2(y + identity)
        return functional.leaky_relu(y, 0.2)


@of_networks
class Encoder(nn.Module):
    def __init__(self, size, image_channels, channels, expand, family):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(image_channels, channels[0], 5, padding=2, bias=False),
            nn.BatchNorm2d(channels[0]), nn.LeakyReLU(0.2), nn.AvgPool2d(2),
        )  # fmt: skip
        for before, after in itertools.pairwise(channels):
            size //= 2
            self.main.add_module(f"res_in_{size}", ResidualBlock(before, after, expand, family))
            self.main.add_module(f"down_to_{size // 2}", nn.AvgPool2d(2))
        self.main.add_module("res_in_4", ResidualBlock(channels[-1], channels[-1], False, family))
        self.fc = nn.Linear(channels[-1] * 16, 2 * Z_DIM)

    def forward(self, x):
        return self.fc(self.main(x).flatten(1)).chunk(2, dim=1)


@of_networks
class Decoder(nn.Module):
    def __init__(self, size, image_channels, channels, expand, family):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(Z_DIM, channels[-1] * 16), nn.ReLU(True))
        self.main = nn.Sequential()
        before, side = channels[-1], 4
        for stage, after in enumerate(reversed(channels)):
            self.main.add_module(f"res_in_{side}", ResidualBlock(before, after, expand and stage > 0, family))
            self.main.add_module(f"up_to_{side * 2}", nn.Upsample(scale_factor=2, mode="nearest"))
            before, side = after, side * 2
        self.main.add_module(f"res_in_{size}", ResidualBlock(before, before, False, family))
        self.main.add_module("predict", nn.Conv2d(before, image_channels, 5, padding=2))

    def forward(self, z):
        x = self.fc(z)
        return self.main(x.view(len(z), -1, 4, 4))


@of_networks
class IntroVAE(nn.Module):
    def __init__(self, *structure):
        super().__init__()
        self.encoder, self.decoder = Encoder(*structure), Decoder(*structure)


def build(structure, seed):
    """A network in eval mode, its normalisation far from that of a fresh one and its images about 1/2."""
    torch.manual_seed(seed)
    model = IntroVAE(*structure)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.5)
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.3, 2.0)
    model.decoder.main.predict.weight.data *= 0.3
    model.decoder.main.predict.bias.data += 0.5
    return model.eval()


def main():
    # The older container holds the source text of every class, torch's among them.
    torch.serialization.get_source_lines_and_file = lambda cls: (["# left out\n"], 1, "left_out.py")
    with tempfile.TemporaryDirectory() as folder:
        save_networks(pathlib.Path(folder))
        save_tensors(pathlib.Path(folder))
        with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
            for path in sorted(pathlib.Path(folder).iterdir()):
                archive.add(path, path.name, filter=anonymous)


def anonymous(entry):
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def save_networks(folder):
    for seed, (name, structure) in enumerate(MODELS.items()):
        model = build(structure, seed)
        z, x = torch.randn(3, Z_DIM), torch.rand(3, structure[1], structure[0], structure[0])
        with torch.no_grad():
            (mu, logvar), images = model.encoder(x), model.decoder(z)
        arrays = {"z": z, "x": x.permute(0, 2, 3, 1), "mu": mu, "logvar": logvar, "images": images.permute(0, 2, 3, 1)}
        np.savez_compressed(folder / f"{name}.npz", **{key: np.float32(value) for key, value in arrays.items()})
        torch.save(model.state_dict(), folder / f"{name}.pth")

    model = build(MODELS["introvae"], 0)
    optimizer = torch.optim.Adam(model.encoder.parameters())
    sum(p.sum() for p in model.encoder.parameters()).backward()
    optimizer.step()
    model = build(MODELS["introvae"], 0)
    forms = {
        "module": model,
        "parallel": {f"module.{key}": value for key, value in model.state_dict().items()},
        "nested": {"epoch": 3, "model": model.state_dict(), "optimizer_e": optimizer.state_dict()},
        "nested_module": {"epoch": 3, "model": nn.DataParallel(model)},
    }
    torch.save(model.state_dict(), folder / "introvae_legacy.pth", **LEGACY)
    with as_torch_0_4_1():
        torch.save(forms["nested_module"], folder / "introvae_nested_module_0_4_1.pth", **LEGACY)
    for form, content in forms.items():
        torch.save(content, folder / f"introvae_{form}.pth")
        torch.save(content, folder / f"introvae_{form}_legacy.pth", **LEGACY)


@contextlib.contextmanager
def as_torch_0_4_1():
    """Parameters are pickled as there: a call of their class with the tensor and requires_grad."""

    class Plain:  # what super(Parameter, self) was pickled as
        def __init__(self, parameter):
            self.parameter = parameter

        def __reduce_ex__(self, protocol):
            function, arguments = self.parameter.data.__reduce_ex__(protocol)
            return function, (*arguments[:4], self.parameter.requires_grad, *arguments[5:])

    today = nn.Parameter.__reduce_ex__
    nn.Parameter.__reduce_ex__ = lambda self, _: (nn.Parameter, (Plain(self), self.requires_grad))
    try:
        yield
    finally:
        nn.Parameter.__reduce_ex__ = today


def save_tensors(folder):
    """Every dtype, strides, offsets, shared storages, parameters and containers, in both containers."""
    whole = torch.arange(24, dtype=torch.float32)
    content = {
        "dtypes": {
            str(dtype).removeprefix("torch."): torch.tensor([0, 1, 2.5, 100]).to(dtype)
            for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8,
                          torch.int16, torch.int32, torch.int64, torch.bool)
        },
        "transposed": whole.view(4, 6).t(), "part": whole[7:11], "columns": whole.view(4, 6)[:, 1::2],
        "scalar": torch.tensor(3.0), "empty": torch.zeros(0, 3), "parameter": nn.Parameter(whole.view(2, 12)),
        "size": whole.view(2, 12).shape, "device": torch.device("cpu"),
        "others": [1, -2.5, "text", None, True, (1, 2), {3}, 2**70],
    }  # fmt: skip
    torch.save(content, folder / "tensors.pth")
    torch.save(content, folder / "tensors_legacy.pth", **LEGACY)


if __name__ == "__main__":
    main()
