"""TIFF: grey values of all layouts, hyperstacks, and the voxel size that ImageJ and OME write."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tiff_files
import tifffile
from command import run
from DNetRegistrationLib.core.errors import PackageError, ScanError, Setting
from DNetRegistrationLib.imaging.volume import read_volume
from grids import noise


def voxels(dtype, *shape: int) -> np.ndarray:
    """Grey values over the whole range of their type."""
    values = noise(*(shape or (9, 40, 50)), dtype=np.float64) * 40
    return values.astype(np.int64).astype(dtype) if np.dtype(dtype).kind != "f" else (values / 7).astype(dtype)


KINDS = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64]
LAYOUTS = [
    {}, {"rows": 7}, {"tile": 16}, {"deflate": True}, {"deflate": True, "tile": 16}, {"deflate": True, "rows": 7},
    {"order": ">"}, {"order": ">", "deflate": True, "tile": 16}, {"big": True}, {"big": True, "tile": 32, "order": ">"},
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", KINDS, ids=lambda kind: kind.__name__)
def test_all_layouts(tmp_path, dtype, layout):
    expected = voxels(dtype)
    volume = read_volume(tiff_files.write(tmp_path / "scan.tif", expected, **layout), spacing=0.01)
    assert volume.voxels.dtype == dtype and volume.voxels.dtype.isnative
    assert np.array_equal(volume.voxels, expected)


@pytest.mark.parametrize("layout", [{}, {"order": ">"}, {"tile": 16}], ids=str)
@pytest.mark.parametrize(
    ("dtype", "predictor"), [(np.uint8, 2), (np.uint16, 2), (np.int32, 2), (np.float32, 3), (np.float64, 3)]
)
def test_predictors(tmp_path, dtype, predictor, layout):
    expected = voxels(dtype)
    path = tiff_files.write(tmp_path / "scan.tif", expected, deflate=True, predictor=predictor, **layout)
    assert np.array_equal(read_volume(path, spacing=0.01).voxels, expected)


def itk(path: Path, values: np.ndarray, compressor: str = "", colours: bool = False) -> Path:
    """A file as libtiff writes it."""
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path))
    writer.SetUseCompression(bool(compressor))
    writer.SetCompressor(compressor)
    writer.Execute(sitk.GetImageFromArray(values, isVector=colours))
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("compressor", ["LZW", "PackBits", "Deflate"])
def test_compressed_by_another_library(tmp_path, dtype, compressor):
    values = voxels(dtype) // np.asarray(20, dtype)  # with runs of equal values
    assert np.array_equal(read_volume(itk(tmp_path / "scan.tif", values, compressor), spacing=0.01).voxels, values)


def test_directories_before_their_strips(tmp_path):
    """The last strip, shorter than the others, ends the file."""
    values = voxels(np.uint16)
    for index, page in enumerate(values):
        tifffile.imwrite(tmp_path / f"{index}.tif", page, rowsperstrip=16)
    assert np.array_equal(read_volume(tmp_path, spacing=0.01).voxels, values)


def test_pictures_of_grey_values(tmp_path):
    grey = voxels(np.uint8)
    written = itk(tmp_path / "colours.tif", np.repeat(grey[..., None], 3, -1), colours=True)
    assert np.array_equal(read_volume(written, spacing=0.01).voxels, grey)
    ramp = np.tile(np.arange(255, -1, -1, dtype=np.uint16) * 257, (3, 1))  # 0 is white
    tifffile.imwrite(tmp_path / "palette.tif", grey, photometric="palette", colormap=ramp)
    assert np.array_equal(read_volume(tmp_path / "palette.tif", spacing=0.01).voxels, 255 - grey)
    tifffile.imwrite(tmp_path / "bits.tif", grey > 100, photometric="minisblack")
    assert np.array_equal(read_volume(tmp_path / "bits.tif", spacing=0.01).voxels, (grey > 100).astype(np.uint8))


def test_pictures_of_colours(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint16), (3, 1))
    ramp[1] = 0
    tifffile.imwrite(tmp_path / "palette.tif", voxels(np.uint8), photometric="palette", colormap=ramp)
    with pytest.raises(ScanError, match="3 values a voxel"):
        read_volume(tmp_path / "palette.tif", spacing=0.01)
    tifffile.imwrite(tmp_path / "complex.tif", voxels(np.float32).astype(np.complex64))
    with pytest.raises(ScanError, match="holds complex numbers"):
        read_volume(tmp_path / "complex.tif", spacing=0.01)


def test_what_loses_grey_values_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "scan.tif", voxels(np.uint8), compression="jpeg")
    with pytest.raises(ScanError, match=r"not read \(JPEG\); save it without compression, or with LZW or Deflate"):
        read_volume(tmp_path / "scan.tif", spacing=0.01)


def test_a_folder_of_files_of_several_slices(tmp_path):
    for index in range(9):
        tiff_files.write(tmp_path / f"{index}.tif", voxels(np.uint16))
    with pytest.raises(ScanError, match=r"0\.tif: holds several slices; give the file itself"):
        read_volume(tmp_path, spacing=0.01)


def test_without_the_packages(tmp_path, monkeypatch):
    plain = tiff_files.write(tmp_path / "plain.tif", voxels(np.uint16))
    deflated = tiff_files.write(tmp_path / "deflated.tif", voxels(np.uint16), deflate=True, predictor=2)
    packed = itk(tmp_path / "packed.tif", voxels(np.uint16), "LZW")
    script = """
        import sys
        sys.modules["imagecodecs"] = None
        from DNetRegistrationLib.core.errors import PackageError
        from DNetRegistrationLib.imaging.volume import read_volume
        read_volume(sys.argv[1], spacing=0.01), read_volume(sys.argv[2], spacing=0.01)
        try:
            read_volume(sys.argv[3], spacing=0.01)
        except PackageError as error:
            print(error)
        """
    ran = run(plain, deflated, packed, code=script)
    assert 'packed.tif: compressed TIFF needs imagecodecs; install it: pip install "imagecodecs"' in ran.stdout
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(PackageError, match=r'TIFF needs tifffile; install it: pip install "tifffile"'):
        read_volume(plain, spacing=0.01)


def test_half_precision_is_read_as_single(tmp_path):
    expected = voxels(np.float16)
    volume = read_volume(tiff_files.write(tmp_path / "scan.tif", expected), spacing=0.01)
    assert volume.voxels.dtype == np.float32 and np.array_equal(volume.voxels, expected)


@pytest.mark.parametrize(
    ("first", "others", "both"),
    [(np.uint8, np.uint16, np.uint16), (np.uint16, np.int16, np.int32), (np.uint8, np.float32, np.float32)],
)
def test_mixed_types_are_read_as_the_one_that_holds_both(tmp_path, first, others, both):
    pages = [voxels(first, 40, 50), *voxels(others, 8, 40, 50)]
    read = read_volume(tiff_files.write(tmp_path / "scan.tif", pages), spacing=0.01).voxels
    assert read.dtype == both and all(np.array_equal(a, b) for a, b in zip(read, pages, strict=True))
    for number, page in enumerate(pages):
        tiff_files.write(tmp_path / f"{number}.tiff", [page])
    (tmp_path / "scan.tif").unlink()
    read = read_volume(tmp_path, spacing=0.01).voxels
    assert read.dtype == both and all(np.array_equal(a, b) for a, b in zip(read, pages, strict=True))


def test_pages_of_several_sizes(tmp_path):
    """One crashed the process, as ITK asks libtiff for rows that a page does not have."""
    pages = [voxels(np.uint16, 10, 12), *voxels(np.uint16, 9, 40, 50)]
    with pytest.raises(ScanError, match=r"of several sizes \(12 x 10 and 50 x 40 pixels\)"):
        read_volume(tiff_files.write(tmp_path / "scan.tif", pages), spacing=0.01)
    marked = tiff_files.write(tmp_path / "scan.tif", pages, reduced=[0])
    assert np.array_equal(read_volume(marked, spacing=0.01).voxels, np.stack(pages[1:]))


def test_one_directory_for_all_pages(tmp_path):
    """So ImageJ writes stacks of more than 4 GB."""
    expected = voxels(np.uint16)
    text = "ImageJ=1.53t\nimages=9\nslices=9\n"
    path = tiff_files.write(tmp_path / "scan.tif", expected, description=text, directories=1, order=">")
    assert np.array_equal(read_volume(path, spacing=0.01).voxels, expected)
    text = text.replace("images=9", "images=8888888")
    tiff_files.write(path, expected, description=text, directories=1)
    with pytest.raises(ScanError, match="ends early"):
        read_volume(path, spacing=0.01)


# --- hyperstacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ome", "directories"), [(False, None), (True, None), (False, 1)])
def test_channels_and_time_points_are_chosen(tmp_path, ome, directories):
    channels, times = 2, 3
    expected = voxels(np.uint16, times, 8, channels, 20, 30)  # the channel varies fastest
    text = f"ImageJ=1.53t\nimages=48\nchannels={channels}\nslices=8\nframes={times}\nhyperstack=true\n"
    if ome:
        text = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
            f'<Pixels DimensionOrder="XYCZT" SizeC="{channels}" SizeT="{times}" SizeX="30" SizeY="20" SizeZ="8"/>'
            "</Image></OME>"
        )
    pages = expected.reshape(-1, 20, 30)
    path = tiff_files.write(tmp_path / "scan.tif", pages, description=text, directories=directories)
    with pytest.raises(ScanError) as caught:
        read_volume(path, role="fixed")
    assert "the file holds 6 scans: 1 is channel 1, time point 1 (of a hyperstack, 30 x 20 x 8)" in str(caught.value)
    assert caught.value.setting == Setting("series", "fixed")
    assert np.array_equal(read_volume(path, spacing=0.01, series=2).voxels, expected[1, :, 0])
    assert np.array_equal(read_volume(path, 0.01, series="channel 2, time point 3").voxels, expected[2, :, 1])


@pytest.mark.parametrize("order", ["XYZCT", "XYZTC", "XYTCZ"])
def test_the_order_of_axes_of_ome(tmp_path, order):
    shape = {"Z": 8, "C": 2, "T": 3}
    axes = order[:1:-1]
    expected = voxels(np.uint8, *(shape[axis] for axis in axes), 20, 30)
    sizes = " ".join(f'Size{axis}="{n}"' for axis, n in shape.items())
    text = f'<OME><Image><Pixels DimensionOrder="{order}" {sizes}/></Image></OME>'
    path = tiff_files.write(tmp_path / "scan.ome.tif", expected.reshape(-1, 20, 30), description=text)
    chosen = expected.transpose(axes.index("C"), axes.index("T"), axes.index("Z"), 3, 4)[1, 0]
    assert np.array_equal(read_volume(path, 0.01, series="channel 2, time point 1").voxels, chosen)


@pytest.mark.parametrize("axis", ["channels", "slices", "frames"])
def test_one_axis_is_that_of_the_slices(tmp_path, axis):
    expected = voxels(np.uint8)
    path = tiff_files.write(tmp_path / "scan.tif", expected, description=f"ImageJ=1.53t\nimages=9\n{axis}=9\n")
    assert np.array_equal(read_volume(path, spacing=0.01).voxels, expected)


# --- voxel size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "per_pixel"),
    [
        ("micron", 1e-3),
        ("um", 1e-3),
        ("\\u00B5m", 1e-3),
        ("µm", 1e-3),
        ("mm", 1),
        ("nm", 1e-6),
        ("cm", 10),
        ("inch", 25.4),
    ],
)
def test_image_j(tmp_path, unit, per_pixel):
    text = f"ImageJ=1.53t\nimages=9\nslices=9\nunit={unit}\nspacing={0.02 / per_pixel}\n"
    path = tiff_files.write(
        tmp_path / "scan.tif", voxels(np.uint16), description=text, resolution=(per_pixel / 0.0125, 1)
    )
    np.testing.assert_allclose(read_volume(path).spacing, (0.0125, 0.0125, 0.02), rtol=1e-5)
    np.testing.assert_allclose(read_volume(path, spacing=0.5).spacing, 0.5)


@pytest.mark.parametrize("unit", [None, "mm", "µm", "nm"])
def test_ome(tmp_path, unit):
    scale = {None: 1e-3, "mm": 1, "µm": 1e-3, "nm": 1e-6}[unit]
    sizes = {"X": 0.0125, "Y": 0.015, "Z": 0.02}
    stated = " ".join(f'PhysicalSize{axis}="{size / scale!r}"' for axis, size in sizes.items())
    if unit:
        stated += "".join(f' PhysicalSize{axis}Unit="{unit}"' for axis in sizes)
    text = f'<OME><Image><Pixels DimensionOrder="XYZCT" SizeC="1" SizeT="1" SizeZ="9" {stated}></Pixels></Image></OME>'
    path = tiff_files.write(tmp_path / "scan.ome.tif", voxels(np.uint16), description=text)
    np.testing.assert_allclose(read_volume(path).spacing, tuple(sizes.values()), rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "resolution", "words"),
    [
        ("", None, "does not store the voxel size; "),
        ("ImageJ=1\nimages=9\nslices=9\nunit=micron\n", (0.08, 1), r"\(in the slices: 0\.0125 x 0\.0125 mm, but not"),
        ("ImageJ=1\nimages=9\nslices=9\nunit=pixel\nspacing=2\n", (72, 1), "does not store the voxel size; "),
        ("ImageJ=1\nimages=9\nslices=9\nspacing=2\n", (72, 1), "does not store the voxel size; "),
        ("ImageJ=1\nimages=9\nslices=9\nunit=mm\nspacing=-2\n", (72, 1), "but not between them"),
        ("", (800, 3), r"\(in the slices: 0\.0125 x 0\.0125 mm, but not between them\)"),
        ("<OME><Pixels PhysicalSizeX='1'/></OME>", None, "does not store the voxel size; "),
    ],
)
def test_a_voxel_size_that_is_not_whole(tmp_path, text, resolution, words):
    path = tiff_files.write(tmp_path / "scan.tif", voxels(np.uint16), description=text, resolution=resolution)
    with pytest.raises(ScanError, match=words) as caught:
        read_volume(path, role="moving")
    assert caught.value.setting == Setting("spacing", "moving")


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_in_deflated_pages_is_noticed(tmp_path):
    expected = voxels(np.uint16, 9, 20, 30)
    path = tiff_files.write(tmp_path / "scan.tif", expected, deflate=True)
    content = path.read_bytes()
    start, end = 8, 8 + sum(len(zlib.compress(page.tobytes())) for page in expected)
    for at in np.random.default_rng(0).integers(start, end, 100):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(at) % 8
        path.write_bytes(damaged)
        with pytest.raises(ScanError, match="damaged"):
            read_volume(path, spacing=0.01)


def test_any_damage_is_refused_in_words(tmp_path):
    """A byte outside the voxels, or a cut."""
    expected = voxels(np.uint8, 8, 9, 10)
    content = tiff_files.write(
        tmp_path / "scan.tif", expected, description="ImageJ=1\nimages=8\nslices=8\n"
    ).read_bytes()
    random = np.random.default_rng(0)
    places = [*range(8), *range(8 + expected.size, len(content))]
    for number in range(200):
        damaged = bytearray(content)
        if number % 5:
            damaged[int(random.choice(places))] = int(random.integers(256))
        else:
            del damaged[int(random.integers(len(content))) :]
        (tmp_path / "scan.tif").write_bytes(damaged)
        try:
            read = read_volume(tmp_path / "scan.tif", spacing=0.01)
        except ScanError as error:
            assert "\n" not in str(error)
        else:
            assert read.voxels.size <= 2 * expected.size * 8


@pytest.mark.parametrize("tag", [256, 257])
def test_pages_without_pixels(tmp_path, tag):
    for index, page in enumerate(voxels(np.uint8)):
        tiff_files.write(tmp_path / f"{index}.tif", [page])
    content = (tmp_path / "5.tif").read_bytes()
    size = struct.pack("<HHII", tag, 4, 1, {256: 50, 257: 40}[tag])
    assert size in content
    (tmp_path / "5.tif").write_bytes(content.replace(size, struct.pack("<HHII", tag, 4, 1, 0)))
    with pytest.raises(ScanError, match=r"5\.tif: the file ends early"):
        read_volume(tmp_path, spacing=0.01)


def test_one_value_a_pixel_called_colour(tmp_path):
    path = tiff_files.write(tmp_path / "scan.tif", voxels(np.uint8))
    content, grey = path.read_bytes(), struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert content.count(grey) == 9
    path.write_bytes(content.replace(grey, struct.pack("<HHIHH", 262, 3, 1, 2, 0)))
    assert np.array_equal(read_volume(path, spacing=0.01).voxels, voxels(np.uint8))


@pytest.mark.parametrize(("pages", "target"), [(9, 0), (150, 0), (150, 120), (9, None)])
def test_pages_without_an_end(tmp_path, pages, target):
    path = tiff_files.write(tmp_path / "scan.tif", voxels(np.uint8, pages, 8, 8))
    content = bytearray(path.read_bytes())
    links = [4]
    while place := struct.unpack_from("<I", content, links[-1])[0]:
        links.append(place + 2 + 12 * struct.unpack_from("<H", content, place)[0])
    to = 1 << 30 if target is None else struct.unpack_from("<I", content, links[target])[0]
    struct.pack_into("<I", content, links[-1], to)
    path.write_bytes(content)
    with pytest.raises(ScanError, match="ends early" if target is None else "circle"):
        read_volume(path, spacing=0.01)


@pytest.mark.parametrize(
    ("layout", "tag"),
    [
        ({}, 257),
        ({"deflate": True}, 257),
        ({"tile": 16}, 257),
        ({"tile": 16}, 323),
        ({"tile": 16, "deflate": True}, 323),
    ],
    ids=str,
)
def test_absurd_sizes_are_refused_before_memory_is_asked_for(tmp_path, monkeypatch, layout, tag):
    """The height of the pages, or of their tiles."""
    path = tiff_files.write(tmp_path / "scan.tif", voxels(np.uint16, 9, 16, 16), **layout)
    content, size = path.read_bytes(), struct.pack("<HHII", tag, 4, 1, 16)
    assert content.count(size) == 9
    path.write_bytes(content.replace(size, struct.pack("<HHII", tag, 4, 1, 60_000_000)))
    whole = np.empty
    monkeypatch.setattr(np, "empty", lambda shape, *rest: whole(shape, *rest) if np.prod(shape) < 1e7 else 1 / 0)
    with pytest.raises(ScanError, match="ends early"):
        read_volume(path, spacing=0.01)
