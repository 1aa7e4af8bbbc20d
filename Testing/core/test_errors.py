"""Errors carry problem, remedy and setting, and are one line."""

import pickle

import pytest
from DNetRegistrationLib.core import errors
from DNetRegistrationLib.core.errors import DNetError, FileError, PackageError, RunError, Setting, known_error, one_line

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DNetError)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_the_same_in_another_process(kind):
    error = kind("a.tif: has no voxel size", "give it in mm", Setting("spacing", "fixed"))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) == "a.tif: has no voxel size; give it in mm"
    assert (again.problem, again.remedy, again.setting) == (error.problem, error.remedy, error.setting)
    assert str(kind("it failed")) == "it failed"
    assert str(kind("a\nb.tif: is no\u2028scan", "give\r\nanother")) == "a b.tif: is no scan; give another"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ModuleNotFoundError("no", name="scipy.ndimage"), PackageError, "scipy is not installed; install it"),
        (MemoryError(), RunError, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), RunError, "not enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), RunError, "not enough memory"),
        (ModuleNotFoundError("no", name="mistyped"), type(None), "None"),
        (PermissionError(13, "Permission denied", "a.nrrd"), FileError, "a.nrrd: cannot be used (Permission denied); "),
        (OSError("no file"), type(None), "None"),
        (KeyError("a"), type(None), "None"),
    ],
)
def test_what_other_libraries_raise(error, kind, words):
    found = known_error(error)
    assert type(found) is kind and words in str(found)


@pytest.mark.parametrize(
    "text, gist",
    [
        ("Exception thrown in SimpleITK X: /a.cxx:1:\nITK ERROR: MetaImageIO(0x55f): File cannot be read\nReason: Gone",
         "Gone"),
        ("Exception thrown in SimpleITK X: /a.cxx:1:\nITK ERROR: NrrdImageIO(0x5f): Read: Error reading a:\n"
         "[nrrd] nrrdLoad: trouble\n[nrrd] _raw_read: got only 3", "_raw_read: got only 3"),
        ("Exception thrown in SimpleITK X: /a.cxx:1:\nITK ERROR: PNGImageIO(0x55f84c): Error while reading file: a\n",
         "Error while reading file: a"),
        ("", "RuntimeError"),
        ("a" * 500, "a" * 157 + "..."),
    ],
)  # fmt: skip
def test_one_line(text, gist):
    assert one_line(RuntimeError(text)) == gist
