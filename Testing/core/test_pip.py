"""The command that installs a missing package."""

import sys

import pytest
from DNetRegistrationLib.core.errors import PackageError
from DNetRegistrationLib.core.packages import needed
from DNetRegistrationLib.core.pip import pip_install


@pytest.mark.parametrize("launcher", ("PythonSlicer", "PythonSlicer.exe"))
def test_in_slicer_packages_go_into_its_own_python(tmp_path, monkeypatch, launcher):
    (tmp_path / "lib" / "Python").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "lib" / "Python"))
    assert pip_install("aimio-py", extra="scanco") == 'pip install "dnet-registration[scanco]"'
    (tmp_path / "bin" / launcher).touch()
    assert pip_install("aimio-py", extra="scanco") == "PythonSlicer -m pip install aimio-py"
    with pytest.raises(PackageError, match=r'TIFF needs no_such; install it: PythonSlicer -m pip install "no_such"'):
        needed("no_such", "a.tif: TIFF")
