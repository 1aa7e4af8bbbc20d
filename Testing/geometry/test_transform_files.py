"""Files of transforms: those of ITK and elastix, a matrix as text, and what is refused."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from alignments import made_alignment
from command import run
from DNetRegistrationLib.core.errors import FileError, OptionError
from DNetRegistrationLib.geometry.transform_files import _READ_HDF5, read_transform, read_truth, write_transform
from DNetRegistrationLib.geometry.transforms import to_sitk
from scipy.spatial.transform import Rotation


def random_transform(seed: int = 0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    matrix[:3, 3] = np.random.default_rng(seed).normal(size=3) * 20
    return matrix


@pytest.mark.parametrize("ending", [".tfm", ".h5", ".mat", ".txt", ".TFM", ".H5", ".Mat", ".TXT"])
def test_written_matrices_are_read_again(tmp_path, ending):
    matrix = random_transform(5)
    for number, form in enumerate((matrix, matrix.tolist(), to_sitk(matrix))):
        write_transform(form, tmp_path / f"{number}{ending}")
        np.testing.assert_allclose(read_transform(tmp_path / f"{number}{ending}"), matrix, atol=1e-12, rtol=0)


def test_what_cannot_be_written_is_told_with_the_file_and_the_remedy(tmp_path):
    """SimpleITK's RuntimeError came through."""
    (tmp_path / "there.tfm").mkdir()
    for name, words in (
        ("none/a.tfm", "its folder does not exist; create"),
        ("there.tfm", "it is a folder; give a file name"),
        ("a.xyz", "cannot write this kind of file; end its name in one of .tfm"),
    ):
        with pytest.raises(FileError, match=f"{name}: .*{words}"):
            write_transform(np.eye(4), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["there.tfm"]


ENDINGS = [".tfm", ".txt", ".h5", ".hdf5", ".mat"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["matrix", "rigid", "sheared", "composite", "composite of composites"])
def test_what_is_written_is_read_again_to_the_last_bit_or_refused(tmp_path, ending, kind):
    """Composite transforms in MATLAB files could not be read again; one that ends in an identity was read as that.

    SimpleITK could not write composites of composites.
    """
    sheared = sitk.AffineTransform((1.0, 0.2, 0.1, 0.0, 1.0, 0.3, 0.0, 0.0, 1.0), (1.1, 2.2, 3.3), (4.0, 5.0, 6.0))
    shift, none = sitk.TranslationTransform(3, (7.0, 8.0, 9.0)), sitk.Transform(3, sitk.sitkIdentity)
    composite = sitk.CompositeTransform([sheared, shift, none])
    transform = {
        "matrix": random_transform(7),
        "rigid": sitk.VersorRigid3DTransform((0.6, 0.0, 0.8), 0.7, (1, 2, 3), (10, -20, 300)),
        "sheared": sheared,
        "composite": composite,
        "composite of composites": sitk.CompositeTransform([sitk.CompositeTransform([shift, composite]), shift]),
    }[kind]
    path = tmp_path / f"a{ending}"
    if ending == ".mat" and kind.startswith("composite"):
        with pytest.raises(FileError, match=r"a\.mat: .* parts of a composite transform; write it as \.tfm or \.h5"):
            write_transform(transform, path)
        assert not path.exists()
        return
    write_transform(transform, path)
    back = sitk.ReadTransform(str(path))
    given = to_sitk(transform) if kind == "matrix" else transform
    for point in ((0.0, 0.0, 0.0), (1.0, 2.0, 3.0), (-50.0, 0.0, 4000.0)):
        assert back.TransformPoint(point) == given.TransformPoint(point)


@pytest.mark.parametrize("empty", [sitk.CompositeTransform(3), sitk.CompositeTransform([sitk.CompositeTransform(3)])])
def test_a_composite_transform_without_parts_is_not_written(tmp_path, empty):
    """It could not be read."""
    with pytest.raises(OptionError, match="has no parts"):
        write_transform(empty, tmp_path / "a.tfm")
    assert not list(tmp_path.iterdir())


def test_a_composite_transform_in_a_matlab_file_is_not_taken_for_another(tmp_path):
    """Its last part, which alone was written, was an identity: so it was read as one."""
    shift, none = sitk.TranslationTransform(3, (7.0, 8.0, 9.0)), sitk.Transform(3, sitk.sitkIdentity)
    for parts in ([shift, none], [none, shift]):
        sitk.WriteTransform(sitk.CompositeTransform(parts), str(tmp_path / "a.mat"))
        with pytest.raises(FileError, match=r"a\.mat: .* parts of a composite transform; write it as \.tfm or \.h5"):
            read_transform(tmp_path / "a.mat")


@pytest.mark.parametrize("ending", [".tfm", ".mat"])
def test_transforms_that_are_not_one_are_not_taken_for_the_first(tmp_path, ending, monkeypatch):
    for number in range(2):
        write_transform(random_transform(number), tmp_path / f"{number}{ending}")
    first, second = ((tmp_path / f"{number}{ending}").read_bytes() for number in range(2))
    second = second.replace(b"#Insight Transform File V1.0\n", b"").replace(b"#Transform 0", b"#Transform 1")
    (tmp_path / f"both{ending}").write_bytes(first + second)
    with pytest.raises(FileError, match=r"both\..*: holds several transforms that are not one; write each to a file"):
        read_transform(tmp_path / f"both{ending}")
    # Of HDF5, which nothing here writes so, what SimpleITK says tells.
    module = "DNetRegistrationLib.geometry.transform_files"
    script = _READ_HDF5.replace("sys.argv[1])", f"{str(tmp_path / f'both{ending}')!r})")
    monkeypatch.setattr(f"{module}._READ_HDF5", script)
    (tmp_path / "both.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(FileError, match=r"both\.h5: holds several transforms that are not one"):
        read_transform(tmp_path / "both.h5")


def kinds() -> list[sitk.Transform]:
    """All rigid transforms that ITK writes."""
    euler = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.3, -0.2, 0.1, (4.0, 5.0, 6.0))
    zyx = sitk.Euler3DTransform(euler)
    zyx.SetComputeZYX(True)
    versor = sitk.VersorRigid3DTransform((0.6, 0.0, 0.8), 0.7, (1, 2, 3), (10, -20, 300))
    turn = sitk.VersorTransform((0.6, 0.0, 0.8), 0.7, (10, -20, 300))
    similarity = sitk.Similarity3DTransform(1.0, (0.6, 0.0, 0.8), 0.7, (1, 2, 3), (10, -20, 300))
    shift = sitk.TranslationTransform(3, (7.0, 8.0, 9.0))
    both = sitk.CompositeTransform([versor, euler, shift])
    return [euler, zyx, versor, turn, similarity, shift, sitk.Transform(3, sitk.sitkIdentity), both]


@pytest.mark.parametrize("transform", kinds(), ids=lambda transform: transform.GetName())
@pytest.mark.parametrize("ending", [".tfm", ".h5", ".mat"])
def test_all_rigid_transforms_of_itk(tmp_path, ending, transform):
    if transform.GetName().startswith("Composite") and ending == ".mat":
        ending = ".txt"  # ITK writes no such MATLAB file
    sitk.WriteTransform(transform, str(tmp_path / f"a{ending}"))
    matrix = read_transform(tmp_path / f"a{ending}")
    for point in ((0.0, 0.0, 0.0), (1.0, 2.0, 3.0), (-50.0, 0.0, 4000.0)):
        np.testing.assert_allclose((matrix @ [*point, 1])[:3], transform.TransformPoint(point), atol=1e-8)


# --- a matrix as text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [" ", "\t", ", ", ",", "   "])
@pytest.mark.parametrize("ending", [".txt", ".csv", ".xfm", ""])
def test_a_matrix_as_text(tmp_path, separator, ending):
    matrix = random_transform(3)
    path = tmp_path / f"matrix{ending}"
    path.write_text(
        "# fixed to moving\n" + "\n".join(separator.join(map(repr, row)) for row in matrix.tolist()) + "\n\n"
    )
    np.testing.assert_allclose(read_transform(path), matrix, atol=1e-14, rtol=0)
    np.savetxt(path, matrix, "%.6f")
    np.testing.assert_allclose(read_transform(path), matrix, atol=1e-5, rtol=0)


def test_a_matrix_of_fsl_is_not_taken(tmp_path):
    np.savetxt(tmp_path / "flirt.mat", np.eye(4))
    with pytest.raises(FileError, match=r"as FSL writes it, in coordinates of its own; write it as \.txt"):
        read_transform(tmp_path / "flirt.mat")


# --- elastix ----------------------------------------------------------------------------------------------------------


def elastix(
    path: Path, kind: str, parameters, center=(0, 0, 0), first: str = "NoInitialTransform", more: str = ""
) -> Path:
    lines = [
        f'(Transform "{kind}")', f"(NumberOfParameters {len(parameters)})",
        f"(TransformParameters {' '.join(map(repr, parameters))})", f'(InitialTransformParametersFileName "{first}")',
        '(HowToCombineTransforms "Compose")', "(FixedImageDimension 3)", "(MovingImageDimension 3)",
        '(UseDirectionCosines "true")', "// Interpolator", '(ResampleInterpolator "FinalBSplineInterpolator")', more,
    ]  # fmt: skip
    if center is not None:
        lines.append(f"(CenterOfRotationPoint {' '.join(map(repr, center))})")
    path.write_text("\n".join(lines) + "\n")
    return path


ANGLES, SHIFT, CENTER = (0.3, -0.2, 0.1), (4.0, 5.0, 6.0), (1.5, -20.0, 300.25)


@pytest.mark.parametrize("zyx", [False, True])
def test_a_transform_of_elastix(tmp_path, zyx):
    transform = sitk.Euler3DTransform(CENTER, *ANGLES, SHIFT)
    transform.SetComputeZYX(zyx)
    more = f'(ComputeZYX "{str(zyx).lower()}")'
    path = elastix(tmp_path / "TransformParameters.0.txt", "EulerTransform", (*ANGLES, *SHIFT), CENTER, more=more)
    matrix = read_transform(path)
    for point in ((0.0, 0.0, 0.0), (1.0, 2.0, 3.0), (-50.0, 0.0, 4000.0)):
        np.testing.assert_allclose((matrix @ [*point, 1])[:3], transform.TransformPoint(point), atol=1e-9)


def test_a_transform_of_elastix_that_starts_from_another(tmp_path):
    first, then = random_transform(1), sitk.Euler3DTransform(CENTER, *ANGLES, SHIFT)
    elastix(tmp_path / "0.txt", "AffineTransform", (*first[:3, :3].ravel().tolist(), *first[:3, 3].tolist()), (0, 0, 0))
    path = elastix(tmp_path / "1.txt", "EulerTransform", (*ANGLES, *SHIFT), CENTER, "0.txt")
    point = (3.0, -20.0, 511.0)
    expected = then.TransformPoint((first @ [*point, 1])[:3].tolist())
    np.testing.assert_allclose((read_transform(path) @ [*point, 1])[:3], expected, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "parameters", "words", "options"),
    [
        ("EulerTransform", (*ANGLES, *SHIFT[:2]), "EulerTransform has 5 parameters, not 6", {}),
        ("EulerTransform", (*ANGLES, *SHIFT), "starts from cannot be read", {"first": "gone.txt"}),
        ("EulerTransform", (*ANGLES, *SHIFT), "starts from cannot be read", {"first": "a.txt"}),
        ("EulerTransform", (*ANGLES, *SHIFT), "no three numbers", {"center": (1, 2)}),
        ("EulerTransform", (*ANGLES, *SHIFT), "no three numbers", {"center": None}),
        ("EulerTransform", (*ANGLES, *SHIFT[:2], float("nan")), "not finite", {}),
        ("AffineTransform", (2.0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0), "scales or shears", {}),
        ("BSplineTransform", ANGLES, "BSplineTransform of elastix is not a rigid transform", {}),
    ],
)
def test_transforms_of_elastix_that_are_refused(tmp_path, kind, parameters, words, options):
    with pytest.raises(FileError, match=rf"a\.txt: .*{words}"):
        read_transform(elastix(tmp_path / "a.txt", kind, parameters, **options))


def test_a_cut_transform_of_elastix(tmp_path):
    """A rotation without its centre is another transform."""
    text = elastix(tmp_path / "a.txt", "EulerTransform", (*ANGLES, *SHIFT), CENTER).read_text()
    for length in range(1, len(text) - 2):
        (tmp_path / "a.txt").write_text(text[:length])
        with pytest.raises(FileError):
            read_transform(tmp_path / "a.txt")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("composite", [False, True])
def test_a_cut_transform_of_itk(tmp_path, composite):
    """Parts of a transform were missing, and digits of the last number."""
    turn = sitk.Euler3DTransform(CENTER, *ANGLES, SHIFT)
    turn = sitk.CompositeTransform([turn, turn]) if composite else turn
    sitk.WriteTransform(turn, str(tmp_path / "a.tfm"))
    text = (tmp_path / "a.tfm").read_text()
    whole = text.index("#Transform 2") if composite else len(text)  # the first part alone is whole
    for length in {*range(1, len(text), 3), *range(len(text) - 12, len(text))} - {whole, len(text)}:
        (tmp_path / "a.tfm").write_text(text[:length])
        with pytest.raises(FileError):
            read_transform(tmp_path / "a.tfm")


def itk_text(kind: str, parameters: str, fixed: str = "0 0 0") -> str:
    lines = ("#Insight Transform File V1.0", "#Transform 0", f"Transform: {kind}")
    return "\n".join((*lines, f"Parameters: {parameters}", f"FixedParameters: {fixed}", ""))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (itk_text("Euler3DTransform_double_3_3", "0.1 0.2"), "has 2 parameters and 3 fixed ones, not 6 and 3"),
        (itk_text("Euler3DTransform_double_3_3", "0 0 0 0 0 0 0"), "has 7 parameters"),
        (itk_text("AffineTransform_double_3_3", "1 0 0 0 1 0 0 0 1 0 0 0", "0"), "1 fixed ones"),
        (itk_text("AffineTransform_double_3_3", "one 0 0 0 1 0 0 0 1 0 0 0"), "a parameter is not a number"),
        (itk_text("AffineTransform_double_3_3", "nan 0 0 0 1 0 0 0 1 0 0 0"), "a parameter is not finite"),
        (itk_text("AffineTransform_double_3_3", "1e308 0 0 0 1 0 0 0 1 0 0 0"), "a parameter is not finite"),
        (itk_text("WonderTransform_double_3_3", "0 0 0"), "'WonderTransform' is not known"),
        (itk_text("BSplineTransform_double_3_3", "0 0 0"), "not a linear transform"),
        (itk_text("Euler2DTransform_double_2_2", "0 0 0", "0 0"), "2 dimensions"),
        ("#Insight Transform File V1.0\n", "holds no transform"),
        ("#Insight Transform File V1.0\nTransform: AffineTransform_double_3_3\n", "its parameters are missing"),
        ("1 0 0\n0 1 0\n0 0 1\n", "does not hold the 16 numbers"),
        ("2 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "scales or shears"),
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 x\n", "not a number"),
        ("turn it a little\n", "not a number"),
        ("", "does not hold the 16 numbers"),
    ],
)
@pytest.mark.parametrize("ending", [".tfm", ".txt"])
def test_text_that_is_no_rigid_transform(tmp_path, text, words, ending):
    (tmp_path / f"a{ending}").write_text(text)
    with pytest.raises(FileError, match=rf"a\{ending}: .*{words}"):
        read_transform(tmp_path / f"a{ending}")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 200,
        struct.pack("<5i", 0, 6, 1, 0, 28) + b"Euler3DTransform_double_3_3\0" + bytes(16),
        struct.pack("<5i", 0, 2, 1, 0, 28) + b"Euler3DTransform_double_3_3\0" + bytes(16)
        + struct.pack("<5i", 0, 3, 1, 0, 6) + b"fixed\0" + bytes(24),
        struct.pack("<5i", 0, 1 << 30, 1, 0, 28) + b"Euler3DTransform_double_3_3\0" + bytes(100),
        struct.pack("<5i", 0, 6, 1, 0, 1 << 30) + bytes(100),
        b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(200),
        b"\x89HDF\r\n\x1a\n" + bytes(300),
    ],
)  # fmt: skip
def test_bytes_that_are_no_rigid_transform(tmp_path, content):
    for ending in (".mat", ".h5", ".tfm"):
        (tmp_path / f"a{ending}").write_bytes(content)
        with pytest.raises(FileError, match=rf"a\{ending}: is no transform file"):
            read_transform(tmp_path / f"a{ending}")


def test_files_that_are_no_rigid_transform(tmp_path):
    with pytest.raises(FileError, match="there is no such transform file; check the path"):
        read_transform(tmp_path / "missing.tfm")
    scaled = sitk.AffineTransform(3)
    scaled.Scale(2.0)
    for ending in (".tfm", ".mat", ".h5"):
        write_transform(scaled, tmp_path / f"scaled{ending}")
        with pytest.raises(FileError, match=r"scaled\..*scales or shears"):
            read_transform(tmp_path / f"scaled{ending}")
    sitk.WriteTransform(sitk.Euler2DTransform(), str(tmp_path / "flat.h5"))
    with pytest.raises(FileError, match=r"flat\.h5: .*2 dimensions"):
        read_transform(tmp_path / "flat.h5")


_DAMAGE = """
import sys
import numpy as np
from pathlib import Path
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.geometry.transform_files import _READ_HDF5, read_transform
folder, count = Path(sys.argv[1]), int(sys.argv[2])
random = np.random.default_rng(0)
sources = [(path.suffix, path.read_bytes()) for path in sorted(folder.iterdir())]
for number in range(count):
    ending, content = sources[number % len(sources)]
    damaged = bytearray(content)
    for at in random.integers(len(damaged), size=random.integers(1, 6)):
        damaged[at] = random.choice([0, 255, 32, 45, 48, 57, 101, random.integers(256)])
    if number % 3 == 0:
        del damaged[random.integers(len(damaged)):]
    path = folder / f"damaged{ending}"
    path.write_bytes(damaged)
    try:
        matrix = read_transform(path)
    except FileError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert matrix.shape == (4, 4) and np.isfinite(matrix).all()
"""


def test_damage_is_refused_in_words_and_ends_no_process(tmp_path):
    for number, transform in enumerate(kinds()[:4]):
        for ending in (".tfm", ".mat"):
            sitk.WriteTransform(transform, str(tmp_path / f"{number}{ending}"))
    elastix(tmp_path / "e.txt", "EulerTransform", (*ANGLES, *SHIFT), CENTER)
    done = run(tmp_path, "900", code=_DAMAGE)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no processor's time")
def test_a_reader_of_hdf5_that_does_not_end_is_ended(tmp_path, monkeypatch):
    module = "DNetRegistrationLib.geometry.transform_files"
    monkeypatch.setattr(f"{module}._READ_HDF5", _READ_HDF5.replace("import SimpleITK as sitk", "while True: pass"))
    monkeypatch.setattr(f"{module}._LONGEST", 1)
    # The processor's time ends it, although the clock would allow an hour.
    monkeypatch.setattr(f"{module}._LONGEST_BY_CLOCK", 3600)
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(FileError, match=r"a\.h5: is no transform file \(the HDF5 file is damaged"):
        read_transform(tmp_path / "a.h5")


@pytest.mark.slow
def test_damaged_hdf5_ends_no_process(tmp_path):
    sitk.WriteTransform(kinds()[0], str(tmp_path / "a.h5"))
    done = run(tmp_path, "20", code=_DAMAGE)
    assert done.returncode == 0, done.stderr


def test_a_transform_of_a_refused_alignment_is_no_truth(tmp_path):
    """Neither to train on nor to measure errors by."""
    for accepted, doubts in ((True, []), (False, ["symmetry"])):
        alignment = made_alignment(np.eye(4), accepted=accepted, doubts=doubts)
        for ending in (".tfm", ".txt"):
            write_transform(alignment, tmp_path / f"{accepted}{ending}")
    assert np.array_equal(read_truth(tmp_path / "True.tfm"), np.eye(4))
    for ending in (".tfm", ".txt"):
        with pytest.raises(FileError, match=rf"False\{ending}: is no truth.* not accepted \(symmetry\); give the true"):
            read_truth(tmp_path / f"False{ending}")
        # Other readers than ITK's count the lines.
        assert (tmp_path / f"False{ending}").read_text().startswith((tmp_path / f"True{ending}").read_text())
