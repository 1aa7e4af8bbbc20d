"""PyTorch files of plain tensors, numbers and text, read without running anything from them."""

from __future__ import annotations

import io
import zipfile
from typing import Any


def load_plain(content: bytes) -> Any:
    """What a PyTorch file holds, on the CPU.

    Such a file is a ZIP archive. torch does not look at its checksums, and unpacks what is compressed, which torch
    itself never writes: 3 MB become gigabytes.

    Raises:
        pickle.UnpicklingError: it is no such file, or asks to run code, which was refused.
        Exception: it is damaged; torch's reader raises many kinds.
    """
    import torch

    stream = io.BytesIO(content)
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            packed = any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist())
            if packed or archive.testzip() is not None:
                raise ValueError("a record is compressed, or not what its checksum says")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
