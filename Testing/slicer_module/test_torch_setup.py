"""PyTorch through its extension: every way that can end, with stand-ins for the extension and for what is installed."""

from __future__ import annotations

import subprocess
import sys
import types

import places
import pytest
from DNetRegistrationLib.core.errors import PackageError
from DNetRegistrationLib.slicer_module import torch_setup
from DNetRegistrationLib.slicer_module.torch_setup import ensure_torch, installed_version, require_torch, requirement


class Extension:
    """A `PyTorchUtilsLogic`: `does` is called for an installation, and says what is installed afterwards."""

    def __init__(self, does, before=None):
        self.does, self.version, self.asked = does, before, None

    def __call__(self):
        return self

    def installTorch(self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None):
        self.asked = (askConfirmation, torchVersionRequirement)
        return self.does(self)


def installs(version):
    def does(extension):
        extension.version = version
        return object()

    return does


def fails(error, version=None):
    def does(extension):
        extension.version = version
        raise error

    return does


def test_what_is_there_is_used(monkeypatch):
    extension = Extension(fails(AssertionError("not asked for")), "2.7.1+cu126")
    monkeypatch.setattr(torch_setup, "installed_version", lambda: extension.version)
    ensure_torch(extension)
    require_torch()
    assert extension.asked is None


def test_it_is_installed_after_asking(monkeypatch):
    extension = Extension(installs("2.13.0"))
    monkeypatch.setattr(torch_setup, "installed_version", lambda: extension.version)
    ensure_torch(extension)
    assert extension.asked == (True, ">=2.3")


def windows_folder(length: int) -> str:
    """A folder of packages with a path of so many characters."""
    ending = "\\lib\\Python\\Lib\\site-packages"
    return "C:\\" + "x" * (length - 3 - len(ending)) + ending


# The longest path of torch 2.13 with a local version, and of 2.14.
DEEP = (
    "torch-2.13.0+cu126.dist-info/licenses/third_party/kineto/libkineto/third_party/dynolog/third_party/prometheus-cpp/"
    "3rdparty/civetweb/src/third_party/duktape-1.8.0/LICENSE.txt"
)
FLAT = (
    "torch-2.14.1+cu126.dist-info/licenses/third_party/flash-attention/third_party/aiter/3rdparty/composable_kernel/docs/"
    "license.rst"
)


def test_a_torch_whose_paths_windows_takes():
    """A path may have 259 characters. In Slicer's default folder 2.13 does not fit; PythonSlicer knows no long ones."""
    default = r"C:\Users\administrator\AppData\Local\slicer.org\3D Slicer 5.12.3\lib\Python\Lib\site-packages"
    assert len(f"{default}\\{DEEP}") > 259 > len(f"{default}\\{FLAT}")
    assert requirement(default, windows=True) == ">=2.3,!=2.13.*,<2.15"
    for longest, fits, else_ in ((DEEP, ">=2.3", ">=2.3,!=2.13.*,<2.15"), (FLAT, ">=2.3,!=2.13.*,<2.15", None)):
        folder = windows_folder(259 - 1 - len(longest))
        assert len(f"{folder}\\{longest}") == 259 and requirement(folder, windows=True) == fits
        if else_ is not None:
            assert requirement(windows_folder(len(folder) + 1), windows=True) == else_
        else:
            with pytest.raises(PackageError, match=r"longer paths than Windows takes; .* such as C:.Slicer, and"):
                requirement(windows_folder(len(folder) + 1), windows=True)
        assert requirement(folder * 3, windows=False) == ">=2.3"


def test_nothing_is_downloaded_that_would_not_fit(monkeypatch):
    extension = Extension(installs("2.12.1"))
    monkeypatch.setattr(torch_setup, "installed_version", lambda: extension.version)
    monkeypatch.setattr(torch_setup, "os", types.SimpleNamespace(name="nt"))
    for length, asked in ((200, None), (110, (True, ">=2.3,!=2.13.*,<2.15"))):
        folder = windows_folder(length)
        monkeypatch.setattr(torch_setup.sysconfig, "get_paths", lambda folder=folder: {"purelib": folder})
        if asked is None:
            with pytest.raises(PackageError, match="longer paths"):
                ensure_torch(extension)
        else:
            ensure_torch(extension)
        assert extension.asked == asked


def missing():
    raise ModuleNotFoundError("No module named 'PyTorchUtils'")


OFFLINE = subprocess.CalledProcessError(1, ["PythonSlicer", "-m", "light_the_torch", "install", "torch>=2.3"])


@pytest.mark.parametrize(
    ("extension", "message"),
    [
        (missing, r"extension PyTorch with the Extension Manager .*, restart Slicer"),
        (Extension(lambda extension: None), "was not installed; click Align again and confirm"),
        (Extension(fails(OFFLINE)), "could not be downloaded and installed .*check the connection"),
        (Extension(fails(ConnectionError("timed out"))), r"\(there seems to be no connection\)"),
        (Extension(fails(OSError(28, "No space left on device"))), "No space left on device.*free disk space"),
        (Extension(fails(ImportError("DLL load failed"), "2.7")), r"does not load yet \(DLL load failed\); restart"),
        (Extension(installs(None)), "was installed; restart Slicer"),
        (Extension(installs("2.1.0")), "2.1.0 is installed, 2.3 or later is needed; .*Uninstall"),
        (Extension(installs("")), "only in part; .*Uninstall"),
        (Extension(None, ""), "only in part; in the module PyTorch Utils click Uninstall PyTorch, restart"),
        (Extension(None, "1.13.1+cpu"), "1.13.1.cpu is installed, 2.3 or later is needed; .*Uninstall"),
    ],
)
def test_every_other_end_says_what_to_do(monkeypatch, extension, message):
    monkeypatch.setattr(torch_setup, "installed_version", lambda: getattr(extension, "version", None))
    with pytest.raises(PackageError, match=message) as caught:
        ensure_torch(extension)
    assert "\n" not in str(caught.value) and "Align again" in str(caught.value)


@pytest.mark.parametrize(
    ("version", "message"), [(None, r'PythonSlicer -m pip install "torch>=2\.3"'), ("", "only in part")]
)
def test_scripts_are_not_asked(monkeypatch, version, message):
    monkeypatch.setattr(torch_setup, "installed_version", lambda: version)
    with pytest.raises(PackageError, match=message):
        require_torch()


def test_what_is_installed_is_found_without_importing_it():
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from DNetRegistrationLib.slicer_module.torch_setup import installed_version
print(installed_version(), "torch" in sys.modules)
"""
    folder = str(places.SOURCE)
    result = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True)
    version, imported = result.stdout.split()
    assert int(version.split(".")[0]) >= 2 and imported == "False", result.stderr


def test_half_an_installation_is_noticed(tmp_path, monkeypatch):
    """A folder that pip has not come to the end of: nothing in it that Python could import, no metadata."""
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert installed_version() == ""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere")])
    assert installed_version() is None
