"""Encode JPEGs on a GPU with nvImageCodec, where the processor does not keep up with large results.

nvJPEG encodes image by image with a fixed cost for each call, so small results are faster on the CPU.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import torch

from engine.codec.arrays import Pixels
from engine.errors import first_line
from engine.system.extras import install_hint

log = logging.getLogger(__name__)


class GpuEncoder:
    """Encode baseline JPEGs on one device; safe to call from several threads, which take turns.

    There is one nvImageCodec encoder for all, because memory of those that threads make for themselves is not freed. On
    a CPU the same code runs nvImageCodec's own CPU encoder, which is how it is tested without a card.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._turn = threading.Lock()
        self._encode: Callable[[Pixels, int, str], bytes | None] | None = None
        self._unusable = False

    def __call__(self, pixels_HWC: Pixels, quality: int, subsampling: str) -> bytes | None:
        """Encode uint8 [H, W, 3] in host memory, `quality` 1 to 100, `subsampling` such as `4:2:0`.

        Returns None where the image cannot be encoded here; the CPU encodes it then. A warning is logged once.
        """
        with self._turn:
            if self._encode is None and not self._unusable:
                self._build()
            if self._encode is None:
                return None
            try:
                return self._encode(pixels_HWC, quality, subsampling)
            except RuntimeError:
                return None

    def _build(self) -> None:
        try:
            self._encode = _nvimgcodec(self._device)
        except (ImportError, AttributeError, OSError, RuntimeError) as error:  # AttributeError: an older version
            self._unusable = True
            reason = first_line(error)
            log.warning(
                "JPEGs are encoded on the CPU: nvImageCodec cannot encode on %s (%s); %s installs it.",
                self._device,
                reason,
                install_hint("gpu"),
            )


def _nvimgcodec(device: torch.device) -> Callable[[Pixels, int, str], bytes | None]:
    from nvidia import nvimgcodec  # optional, and needed for large results on a GPU only

    chroma = {
        "4:4:4": nvimgcodec.ChromaSubsampling.CSS_444,
        "4:2:2": nvimgcodec.ChromaSubsampling.CSS_422,
        "4:2:0": nvimgcodec.ChromaSubsampling.CSS_420,
    }
    if device.type == "cuda":
        encoder = nvimgcodec.Encoder(device_id=device.index)
    else:
        cpu_only = nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)
        encoder = nvimgcodec.Encoder(device_id=nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, backends=[cpu_only])

    def encode(pixels_HWC: Pixels, quality: int, subsampling: str) -> bytes | None:
        parameters = nvimgcodec.EncodeParams(
            quality_type=nvimgcodec.QualityType.QUALITY,
            quality_value=quality,
            chroma_subsampling=chroma[subsampling],
        )
        if device.type == "cpu":
            stream = encoder.encode(nvimgcodec.as_image(pixels_HWC), "jpeg", params=parameters)
        else:
            with torch.cuda.device(device):
                uploaded_HWC = torch.from_numpy(pixels_HWC).to(device)
                current = torch.cuda.current_stream(device).cuda_stream
                image = nvimgcodec.as_image(uploaded_HWC, current)
                stream = encoder.encode(image, "jpeg", params=parameters, cuda_stream=current)
        return None if stream is None else bytes(stream)

    return encode
