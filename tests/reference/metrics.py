"""Makes metrics.npz: what other libraries say of the same features, logits and pictures.

    pip install torch-fidelity pytorch-fid prdc scikit-image
    python tests/reference/metrics.py

Features come from `sd_weights.noise`, so the file holds results only.
"""

import pathlib

import numpy as np
import torch
from sd_weights import noise


def features(name, n, d):
    """Correlated, skewed features with a mean."""
    z = noise(name, (n, d)).astype(np.float64)
    mix = noise("mix", (d, d)).astype(np.float64) + np.eye(d)
    return np.maximum(z @ mix + 0.3, -0.5) + 0.2 * noise(name + "/shift", (d,))


def main():
    """Writes the fixture."""
    # torchvision asks for its compiled operators when it is imported; none is used here
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float limit) -> Tensor")
    from prdc import compute_prdc
    from pytorch_fid.fid_score import calculate_frechet_distance
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    out = {}
    for case, n, m, d in (("many", 400, 300, 24), ("few", 60, 80, 96)):
        a, b = features(case + "/a", n, d), features(case + "/b", m, d)
        stats = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (a, b)]
        out[f"{case}/pytorch_fid"] = calculate_frechet_distance(*stats[0], *stats[1])
        both = [fid_features_to_statistics(torch.tensor(x)) for x in (a, b)]
        out[f"{case}/torch_fidelity"] = fid_statistics_to_metric(*both, False)["frechet_inception_distance"]
        size = min(n, m)
        kid = kid_features_to_metric(
            torch.tensor(a[:size]), torch.tensor(b[:size]), kid_subsets=2, kid_subset_size=size, verbose=False
        )
        out[f"{case}/kid"] = kid["kernel_inception_distance_mean"]
        found = compute_prdc(a, b, 5)
        out[f"{case}/prdc"] = [found[k] for k in ("precision", "recall", "density", "coverage")]
        # its first set is the made one
        pr = prc_features_to_metric(
            torch.tensor(b), torch.tensor(a), prc_neighborhood=3, prc_batch_size=1000, save_cpu_ram=False, verbose=False
        )
        out[f"{case}/prc"] = [pr["precision"], pr["recall"]]
        logits = 4 * noise(case + "/logits", (n, 10))
        score = isc_features_to_metric(torch.tensor(logits), splits=7, shuffle=False)
        out[f"{case}/isc"] = [score["inception_score_mean"], score["inception_score_std"]]
    x = ((noise("picture", (3, 24, 20, 3)) + 1) * 127.5).astype(np.uint8)
    y = np.clip(x + 40.0 * noise("error", x.shape), 0, 255).astype(np.uint8)
    out["psnr"] = [peak_signal_noise_ratio(i, j) for i, j in zip(x, y, strict=True)]
    gauss = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    out["ssim"] = [structural_similarity(i, j, channel_axis=-1, **gauss) for i, j in zip(x, y, strict=True)]
    for name, value in out.items():
        print(name, value)
    np.savez(pathlib.Path(__file__).with_suffix(".npz"), **out)


if __name__ == "__main__":
    main()
