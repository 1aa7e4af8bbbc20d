"""Writes TIFF files in plain Python: tiles, deflated pieces, predictors, pages of any kind, one directory for many."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write(
    path: Path,
    pages: Sequence[np.ndarray],
    *,
    description: str = "",
    resolution: tuple[float, int] | None = None,
    tile: int | None = None,
    rows: int | None = None,
    deflate: bool = False,
    predictor: int = 1,
    order: str = "<",
    big: bool = False,
    reduced: Sequence[int] = (),
    directories: int | None = None,
) -> Path:
    """Writes pages ``(y, x)``.

    Args:
        path: the file.
        pages: of one size and type, or not.
        description: of the first page.
        resolution: pixels in a unit, and the unit: 1 none, 2 inch, 3 cm.
        tile: edge of square tiles; else strips of `rows`, or one.
        rows: of a strip.
        deflate: compresses each piece.
        predictor: 2 stores differences of integers, 3 those of floating point numbers.
        order: byte order.
        big: as BigTIFF.
        reduced: pages that are marked as smaller copies.
        directories: so many pages have one; the voxels of the others follow without.
    """
    pointer, count = ("Q", "Q") if big else ("I", "H")
    content = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42))
    content += struct.pack(order + "HHQ", 8, 0, 0) if big else bytes(4)
    link = 8 if big else 4
    stored = []
    for page in pages:
        offsets, counts = [], []
        for piece in _pieces(page, tile, rows):
            data = _predicted(piece.astype(page.dtype.newbyteorder(order)), predictor)
            data = zlib.compress(data) if deflate else data
            offsets.append(len(content))
            counts.append(len(data))
            content += data
        stored.append((page, offsets, counts))
    for index, (page, offsets, counts) in enumerate(stored[:directories]):
        form = {"u": 1, "i": 2, "f": 3}[page.dtype.kind]
        tags = {
            254: ("I", [int(index in reduced)]), 256: ("I", [page.shape[1]]), 257: ("I", [page.shape[0]]),
            258: ("H", [page.dtype.itemsize * 8]), 259: ("H", [8 if deflate else 1]), 262: ("H", [1]),
            277: ("H", [1]), 317: ("H", [predictor]), 339: ("H", [form]),
        }  # fmt: skip
        if index == 0 and description:
            tags[270] = ("s", [description.encode() + b"\0"])
        if resolution:
            ratio = [round(resolution[0] * 10**6), 10**6]
            tags.update({282: ("II", ratio), 283: ("II", ratio), 296: ("H", [resolution[1]])})
        if tile:
            tags.update({322: ("I", [tile]), 323: ("I", [tile]), 324: (pointer, offsets), 325: (pointer, counts)})
        else:
            tags.update({273: (pointer, offsets), 278: ("I", [rows or page.shape[0]]), 279: (pointer, counts)})
        entries = b""
        for tag, (kind, values) in sorted(tags.items()):
            number = {"H": 3, "I": 4, "II": 5, "Q": 16, "s": 2}[kind]
            data = values[0] if kind == "s" else struct.pack(f"{order}{len(values)}{kind[0]}", *values)
            length = len(data) if kind == "s" else len(values) // len(kind)
            room = struct.calcsize(order + pointer)
            if len(data) > room:
                place = len(content)
                content += data
                data = struct.pack(order + pointer, place)
            entries += struct.pack(order + "HH" + pointer, tag, number, length) + data.ljust(room, b"\0")
        struct.pack_into(order + pointer, content, link, len(content))
        content += struct.pack(order + count, len(tags)) + entries
        link = len(content)
        content += bytes(struct.calcsize(order + pointer))
    path.write_bytes(content)
    return path


def _pieces(page: np.ndarray, tile: int | None, rows: int | None) -> list[np.ndarray]:
    if not tile:
        return [page[start : start + (rows or len(page))] for start in range(0, len(page), rows or len(page))]
    padded = np.pad(page, [(0, -n % tile) for n in page.shape])
    y, x = padded.shape
    return [padded[i : i + tile, j : j + tile] for i in range(0, y, tile) for j in range(0, x, tile)]


def _predicted(piece: np.ndarray, predictor: int) -> bytes:
    if predictor == 2:
        return np.diff(piece, axis=1, prepend=piece.dtype.type(0)).astype(piece.dtype).tobytes()
    if predictor == 3:
        size = piece.dtype.itemsize
        values = np.ascontiguousarray(piece.astype(piece.dtype.newbyteorder(">"))).view(np.uint8)
        planes = values.reshape(len(piece), -1, size).transpose(0, 2, 1).reshape(len(piece), -1)
        return np.diff(planes, axis=1, prepend=np.uint8(0)).astype(np.uint8).tobytes()
    return piece.tobytes()
