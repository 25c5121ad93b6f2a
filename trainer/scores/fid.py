"""FID and KID by `torch-fidelity`, which needs the weights of a pretrained Inception network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor
from torch.utils.data import Dataset

from engine.errors import SetupError


@dataclass(frozen=True)
class Fid:
    """Frechet Inception Distance (Heusel et al., NeurIPS 2017) and Kernel Inception Distance (Binkowski, ICLR 2018)."""

    weights: Path | None = None
    """File of the Inception network's weights; None downloads them."""

    def __call__(self, translated_NHWC: Tensor, real_NHWC: Tensor) -> dict[str, float]:
        """Return `fid` and `kid` of two sets of uint8 photos [N, H, W, 3].

        Raises `SetupError` if the library or the weights are missing.
        """
        try:
            from torch_fidelity import calculate_metrics
        except ImportError as error:
            raise SetupError("FID needs the extra `fid`: pip install 'solstice-engine[fid]'.") from error
        smaller = min(len(translated_NHWC), len(real_NHWC))
        try:
            metrics = calculate_metrics(
                input1=_Images(translated_NHWC),
                input2=_Images(real_NHWC),
                fid=True,
                kid=True,
                kid_subset_size=min(100, smaller),
                cuda=torch.cuda.is_available(),
                verbose=False,
                feature_extractor_weights_path=None if self.weights is None else str(self.weights),
            )
        except (URLError, OSError) as error:
            raise SetupError(f"No weights for FID ({error}); give their file with --fid-weights.") from error
        return {
            "fid": metrics["frechet_inception_distance"],
            "kid": metrics["kernel_inception_distance_mean"],
        }


class _Images(Dataset[Tensor]):
    """Dataset of uint8 photos [3, H, W], the input of the library."""

    def __init__(self, pixels_NHWC: Tensor) -> None:
        self._pixels_NCHW = pixels_NHWC.permute(0, 3, 1, 2).contiguous()

    def __len__(self) -> int:
        return len(self._pixels_NCHW)

    def __getitem__(self, place: int) -> Tensor:
        return self._pixels_NCHW[place]
