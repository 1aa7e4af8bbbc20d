"""The map of thickness as a surface with scalars, which Slicer, ParaView, MeshLab and CloudCompare colour.

Both formats are written by hand: they are short, and VTK is not everywhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..cartilage.result import CartilageMeasurement, ThicknessMap

#: Every tenth part of matplotlib's viridis: even steps to the eye, and for every kind of colour vision.
VIRIDIS = np.array(
    (
        (68, 1, 84), (72, 36, 117), (65, 68, 135), (53, 95, 141), (42, 120, 142), (33, 145, 140),
        (34, 168, 132), (68, 191, 112), (122, 209, 81), (189, 223, 38), (253, 231, 37),
    )
)  # fmt: skip
#: Of what was not measured.
UNKNOWN = (178, 178, 178)


def color_limit_um(found: ThicknessMap) -> float:
    """The upper end of the colour scale, which begins at 0: the 99 % quantile, rounded up to 10 um."""
    known = found.thickness_um[found.measured]
    high = float(np.quantile(known, 0.99)) if len(known) else 0.0
    return max(10.0, 10.0 * float(np.ceil(high / 10)))


def colors(found: ThicknessMap) -> np.ndarray:
    """``(n, 3)`` uint8 red, green, blue of each point; grey where not measured."""
    share = np.clip(np.nan_to_num(found.thickness_um) / color_limit_um(found), 0, 1)
    parts = np.linspace(0, 1, len(VIRIDIS))
    out = np.stack([np.interp(share, parts, VIRIDIS[:, channel]) for channel in range(3)], 1)
    out[~found.measured] = UNKNOWN
    return np.rint(out).astype(np.uint8)


def write_surface(measurement: CartilageMeasurement, path: str | Path) -> None:
    """Writes the map as ``.vtp`` (VTK XML) or ``.ply`` (binary), in the world of the scan without agent, LPS mm.

    Scalars of each point are ``thickness_um``, ``standard_error_um``, ``uptake`` and ``filled_um``, NaN where not
    known; ``compartment`` and ``reason`` count as `CartilageMeasurement.compartments` and `Reason` do. A ``.ply``
    holds colours as well, since few readers of it know scalars.

    Raises:
        OSError: it could not be written.
    """
    found = measurement.map
    scalars = {
        "thickness_um": found.thickness_um.astype("<f4"),
        "standard_error_um": found.standard_error_um.astype("<f4"),
        "uptake": found.uptake.astype("<f4"),
        "filled_um": found.filled_um.astype("<f4"),
        "compartment": found.compartment.astype("<i4"),
        "reason": found.reason.astype("<i4"),
    }
    accepted = "accepted" if measurement.accepted else "NOT ACCEPTED"
    if Path(path).suffix.lower() == ".ply":
        content = _ply(found, scalars, f"the alignment was {accepted}")
    else:
        content = _vtp(found, scalars, f"the alignment was {accepted}")
    Path(path).write_bytes(content)


def _ply(found: ThicknessMap, scalars: dict[str, np.ndarray], note: str) -> bytes:
    columns = {axis: found.points[:, i].astype("<f8") for i, axis in enumerate("xyz")}
    columns |= {f"n{axis}": found.normals[:, i].astype("<f4") for i, axis in enumerate("xyz")}
    columns |= dict(zip(("red", "green", "blue"), colors(found).T, strict=True))
    columns |= scalars
    names = {"<f8": "double", "<f4": "float", "<i4": "int", "|u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", "comment SPACE=LPS", f"comment {note}"]
    header += [f"comment colours from 0 to {color_limit_um(found):.0f} um, grey where not measured"]
    header += [f"element vertex {len(found.points)}"]
    header += [f"property {names[column.dtype.str]} {name}" for name, column in columns.items()]
    header += [f"element face {len(found.triangles)}", "property list uchar int vertex_indices", "end_header", ""]
    vertices = np.zeros(len(found.points), [(name, column.dtype.str) for name, column in columns.items()])
    for name, column in columns.items():
        vertices[name] = column
    faces = np.zeros(len(found.triangles), [("count", "u1"), ("index", "<i4", 3)])
    faces["count"], faces["index"] = 3, found.triangles
    return "\n".join(header).encode("ascii") + vertices.tobytes() + faces.tobytes()


def _vtp(found: ThicknessMap, scalars: dict[str, np.ndarray], note: str) -> bytes:
    blocks: list[bytes] = []

    def array(name: str, values: np.ndarray) -> str:
        kind = {"<f8": "Float64", "<f4": "Float32", "<i4": "Int32", "<i8": "Int64"}[values.dtype.str]
        content, offset = values.tobytes(), sum(map(len, blocks))
        blocks.append(np.array(len(content), "<u8").tobytes() + content)
        parts = values.shape[1] if values.ndim == 2 else 1
        attributes = f'type="{kind}" Name="{name}" NumberOfComponents="{parts}" format="appended" offset="{offset}"'
        return f"<DataArray {attributes}/>"

    count = len(found.triangles)
    point_data = [array(name, values) for name, values in scalars.items()]
    point_data += [array("normals", found.normals.astype("<f4"))]
    points = array("Points", found.points.astype("<f8"))
    cells = array("connectivity", found.triangles.astype("<i8").ravel())
    ends = array("offsets", 3 * np.arange(1, count + 1, dtype="<i8"))
    lines = [
        '<?xml version="1.0"?>',
        f"<!-- {note}; LPS, mm -->",
        '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">',
        "<PolyData>",
        f'<Piece NumberOfPoints="{len(found.points)}" NumberOfVerts="0" NumberOfLines="0" NumberOfStrips="0"'
        f' NumberOfPolys="{count}">',
        '<PointData Scalars="thickness_um" Normals="normals">',
        *point_data,
        "</PointData>",
        f"<Points>{points}</Points>",
        f"<Polys>{cells}{ends}</Polys>",
        "</Piece>",
        "</PolyData>",
        '<AppendedData encoding="raw">',
        "_",
    ]
    return "\n".join(lines).encode("ascii") + b"".join(blocks) + b"\n</AppendedData>\n</VTKFile>\n"
