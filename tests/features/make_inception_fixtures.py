"""Makes tests/features/golden_inception.npz: what pytorch-fid and torch-fidelity answer to random weights.

    python tests/features/make_inception_fixtures.py

Needs torch, torchvision, pytorch-fid 0.3.0 and torch-fidelity 0.4.0, which the tests do not. Weights, images and
feature sets come from `random_weights.py`. The file holds
    features_MODE_HxW        [2, 2048], of images(H, W)
    prepared_MODE_HxW        what the network sees, each 23rd row and column
    image_columns            [16], features that vary most over image_sets(): few, so that covariances have full rank
    image_fid_pytorch_fid    distance of image_sets() by them, in mode "pytorch"
    fid_*, kid_*             distances of feature_sets(); for KID "fake" is the first input and "real" the second
"""

import pathlib
import tempfile

import numpy as np
import random_weights
import torch

# torchvision declares shapes for operators that its compiled part brings, and fails to import without that part.
# Inception needs none of them.
OPERATORS = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    OPERATORS.define(f"{operator}() -> Tensor")

import pytorch_fid.fid_score  # noqa: E402
import pytorch_fid.inception  # noqa: E402
from torch_fidelity import feature_extractor_inceptionv3, metric_fid, metric_kid  # noqa: E402
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x  # noqa: E402

GOLDEN = pathlib.Path(__file__).with_name("golden_inception.npz")
KID = {"kid_subsets": 20, "kid_subset_size": 500, "verbose": False}  # the other settings as torch-fidelity has them


def networks():
    """Functions from uint8 images [B, H, W, 3] to features, by mode, each the tool's own network."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "weights.pth"
        random_weights.save(path, random_weights.state())
        pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: torch.load(path, weights_only=True)
        first = pytorch_fid.inception.InceptionV3().eval()
        second = feature_extractor_inceptionv3.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        )
    return {
        "pytorch": lambda images: first(channels_first(images) / 255)[0][:, :, 0, 0],
        "tensorflow": lambda images: second(channels_first(images))[0],
    }


def channels_first(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def prepared(images, mode):
    """As the two networks do it in their first lines."""
    x = channels_first(images).float()
    if mode == "pytorch":
        x = 2 * torch.nn.functional.interpolate(x / 255, size=(299, 299), mode="bilinear", align_corners=False) - 1
    else:
        x = (interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False) - 128) / 128
    return x.permute(0, 2, 3, 1)[:, ::23, ::23]


def by_pytorch_fid(real, fake):
    moments = [(np.mean(rows, axis=0), np.cov(rows, rowvar=False)) for rows in (fake, real)]
    return pytorch_fid.fid_score.calculate_frechet_distance(*moments[0], *moments[1])


def by_torch_fidelity(real, fake):
    rows = [torch.from_numpy(rows) for rows in (fake, real)]
    statistics = [metric_fid.fid_features_to_statistics(r) for r in rows]
    fid = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    kid = metric_kid.kid_features_to_metric(*rows, **KID)
    return {
        "fid_torch_fidelity": fid[metric_fid.KEY_METRIC_FID],
        "kid_mean_torch_fidelity": kid[metric_kid.KEY_METRIC_KID_MEAN],
        "kid_std_torch_fidelity": kid[metric_kid.KEY_METRIC_KID_STD],
    }


def main():
    golden, look = {}, networks()
    with torch.no_grad():
        for height, width in random_weights.SIZES:
            images = random_weights.images(height, width)
            for mode, network in look.items():
                golden[f"features_{mode}_{height}x{width}"] = network(images).numpy()
                golden[f"prepared_{mode}_{height}x{width}"] = prepared(images, mode).numpy()
        sets = [look["pytorch"](images).numpy() for images in random_weights.image_sets()]
    columns = golden["image_columns"] = np.argsort(np.minimum(*(rows.std(axis=0) for rows in sets)))[-16:]
    golden["image_fid_pytorch_fid"] = by_pytorch_fid(*(np.float64(rows[:, columns]) for rows in sets))
    # In float64, so that the tools' own rounding does not blur the comparison.
    real, fake = map(np.float64, random_weights.feature_sets())
    golden["fid_pytorch_fid"] = by_pytorch_fid(real, fake)
    golden |= by_torch_fidelity(real, fake)
    np.savez_compressed(GOLDEN, **golden)
    for name, value in golden.items():
        print(name, value.shape if np.ndim(value) else value)
    print(GOLDEN, GOLDEN.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
