"""The packages: every file of the module is in them, what describes them agrees, and what they install works."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from DNetRegistrationLib.imaging.volume import write_volume
from DNetRegistrationLib.networks.weights import available_weights, load_weights
from places import ROOT

NAME = "DNetRegistration"
MODULE = ROOT / NAME
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CATALOG = json.loads((ROOT / f"{NAME}.json").read_text(encoding="utf-8"))

#: The only files that hold the repository's address.
ADDRESSED = {"CMakeLists.txt", f"{NAME}.s4ext", f"{NAME}.json", f"{NAME}/{NAME}.py"}

#: The commands that Slicer gets; with training and experiments the others stay in the pip package.
COMMANDS = ("align", "apply", "cartilage", "cohort")

#: What lies in the module's folder and is not part of it.
NOT_OF_THE_MODULE = shutil.ignore_patterns("CMakeLists.txt", "__pycache__", "*.egg-info", ".*")


def cmake_commands(path: Path) -> list[tuple[str, list[str]]]:
    """The commands of a CMakeLists.txt, names in lower case, with their arguments; the variables set in it replaced."""
    token = re.compile(r'#[^\n]*|"((?:[^"\\]|\\.)*)"|([()])|([^\s()"#]+)')
    commands: list[tuple[str, list[str]]] = []
    variables: dict[str, str] = {}
    depth, word = 0, ""
    for quoted, bracket, bare in token.findall(path.read_text(encoding="utf-8")):
        if bracket == "(":
            depth += 1
            if depth == 1:
                commands.append((word.lower(), []))
        elif bracket == ")":
            depth -= 1
            if depth == 0 and commands[-1][0] == "set":
                variables[commands[-1][1][0]] = ";".join(commands[-1][1][1:])
        elif quoted or bare:
            word = re.sub(r"\$\{(\w+)\}", lambda match: variables.get(match[1], match[0]), quoted or bare)
            if depth:
                commands[-1][1].append(word)
    assert depth == 0, f"{path}: brackets do not match"
    return commands


def settings(path: Path) -> dict[str, list[str]]:
    """The variables that a CMakeLists.txt sets."""
    sets = (arguments for command, arguments in cmake_commands(path) if command == "set")
    return {name: [one for value in values for one in value.split(";")] for name, *values in sets}


def listed(module: Path) -> list[str]:
    """The files that the module's CMakeLists.txt hands to the package, scripts first."""
    lists = settings(module / "CMakeLists.txt")
    return lists["MODULE_PYTHON_SCRIPTS"] + lists["MODULE_PYTHON_RESOURCES"]


def there(module: Path) -> set[str]:
    """The files of the module, as paths with forward slashes."""
    found = set()
    for folder, folders, files in os.walk(module):
        ignored = NOT_OF_THE_MODULE(folder, folders + files)
        folders[:] = [name for name in folders if name not in ignored]
        found |= {(Path(folder) / name).relative_to(module).as_posix() for name in files if name not in ignored}
    return found


def for_slicer(name: str) -> bool:
    """Whether a file of the module goes into Slicer's package, by its path."""
    path = PurePosixPath(name)
    room = path.parts[1] if path.parts[0] == "DNetRegistrationLib" else ""
    if room == "cli":
        return path.stem in {*COMMANDS, *"__init__ main arguments wording".split()}
    # Stubs and their mark are for type checkers.
    return room not in ("training", "experiments") and path.suffix not in (".pyi", ".typed")


def list_problems(module: Path) -> list[str]:
    """What is wrong with the package lists of a module's folder, a line each."""
    names, files = listed(module), {name for name in there(module) if for_slicer(name)}
    scripts = set(settings(module / "CMakeLists.txt")["MODULE_PYTHON_SCRIPTS"])
    return (
        [
            f"{name} is not listed in {NAME}/CMakeLists.txt and would not be packaged"
            for name in sorted(files - {*names})
        ]
        + [f"{name} is listed in {NAME}/CMakeLists.txt and not there" for name in sorted({*names} - files)]
        + [f"{name} is listed twice" for name in sorted({name for name in names if names.count(name) > 1})]
        + [f"{name} is in the wrong list" for name in names if name.endswith(".py") != (name in scripts)]
    )


def description() -> dict[str, str]:
    """The fields of the .s4ext file."""
    lines = (ROOT / f"{NAME}.s4ext").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def extension(field: str) -> str:
    """A field of the extension, as the top CMakeLists.txt sets it."""
    (value,) = settings(ROOT / "CMakeLists.txt")[f"EXTENSION_{field}"]
    return value


def test_every_file_of_the_module_is_packaged():
    problems = list_problems(MODULE)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "name",
    [
        "DNetRegistrationLib/new.py", "DNetRegistrationLib/part/__init__.py", "DNetRegistrationLib/outputs/new.py",
        "DNetRegistrationLib/networks/pretrained/new.pt", "DNetRegistrationLib/new.json", "Resources/Icons/new.png",
        "Resources/UI/new.ui", "Resources/new.txt",
    ],
)  # fmt: skip
def test_a_file_that_is_missing_from_the_lists_or_from_the_folder_is_named(name, tmp_path):
    module = shutil.copytree(MODULE, tmp_path / NAME, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    before = list_problems(module)
    (module / name).parent.mkdir(exist_ok=True)
    (module / name).touch()
    assert [line for line in list_problems(module) if line not in before] == [
        f"{name} is not listed in {NAME}/CMakeLists.txt and would not be packaged"
    ]
    (module / name).unlink()
    gone = next(other for other in listed(module) if PurePosixPath(other).suffix in {".py", ".pt"} and "Lib" in other)
    (module / gone).unlink()
    assert f"{gone} is listed in {NAME}/CMakeLists.txt and not there" in list_problems(module)


def test_one_name():
    commands = cmake_commands(ROOT / "CMakeLists.txt")
    assert ("project", [NAME]) in commands, "the version is said once, in version.py"
    assert ("add_subdirectory", [NAME]) in commands
    assert settings(MODULE / "CMakeLists.txt")["MODULE_NAME"] == [NAME]
    assert f"{NAME}.py" in listed(MODULE)
    assert {path.name for path in ROOT.glob("*.s4ext")} == {f"{NAME}.s4ext"}
    # Slicer takes the catalog entry by the extension's name.
    assert [path.name for path in ROOT.glob("*.json")] == [f"{NAME}.json"]


@pytest.mark.parametrize("field", ["homepage", "contributors", "description", "iconurl", "screenshoturls", "depends"])
def test_s4ext_says_what_cmake_says(field):
    assert description()[field] == extension(field.upper())


def test_catalog_entry_says_what_the_others_say():
    assert CATALOG["build_dependencies"] == extension("DEPENDS").split()
    assert CATALOG["scm_url"] == description()["scmurl"] == extension("HOMEPAGE")
    assert CATALOG["scm_revision"] == description()["scmrevision"]
    assert CATALOG["build_subdirectory"] == description()["build_subdirectory"] == "."
    assert CATALOG["category"] == description()["category"] == "Registration"
    assert str(CATALOG["tier"]) == description()["tier"]


def test_catalog_entry_keeps_to_the_schema_and_the_format_of_the_index():
    required, optional = (
        {"$schema", "category", "scm_url"},
        {"scm_revision", "build_dependencies", "build_subdirectory", "tier"},
    )
    assert required <= set(CATALOG) <= required | optional
    assert re.fullmatch(r"https://.*/slicer-extension-catalog-entry-schema-v1\.0\.2\.json#", CATALOG["$schema"])
    assert CATALOG["tier"] in (1, 3, 5)
    assert (ROOT / f"{NAME}.json").read_text(encoding="utf-8") == json.dumps(CATALOG, indent=2, sort_keys=True) + "\n"


def test_pip_package_says_the_same():
    (summary,) = re.findall(r'^description = "(.*)"$', PROJECT, re.MULTILINE)
    assert extension("DESCRIPTION").startswith(f"{summary}.")
    (authors,) = re.findall(r'^authors = \[{ name = "(.*)" }\]$', PROJECT, re.MULTILINE)
    assert extension("CONTRIBUTORS") == authors
    assert 'license = "MIT"' in PROJECT
    assert (ROOT / "LICENSE.txt").read_text(encoding="utf-8").startswith("MIT License")


def test_patent_is_mentioned_where_the_extension_manager_shows_it():
    assert "patent pending (application WO2023/275555A1)" in extension("DESCRIPTION")


def test_one_address():
    owner, repository = re.fullmatch(r"https://github\.com/([^/\s]+)/([^/\s]+)", extension("HOMEPAGE")).groups()
    suffixes = {".py", ".ui", ".txt", ".json", ".s4ext", ".toml"}
    texts = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in (*ROOT.iterdir(), *MODULE.rglob("*"))
        if path.suffix in suffixes
    }
    holding = {name for name, text in texts.items() if f"/{repository}" in text}
    assert holding == ADDRESSED
    for name in holding:
        assert set(re.findall(rf"([^/\s]*)/{repository}", texts[name])) == {owner}, name


def test_pictures_of_the_extension_are_in_the_repository():
    address = extension("HOMEPAGE").replace("https://github.com/", "https://raw.githubusercontent.com/")
    for url in [extension("ICONURL"), *extension("SCREENSHOTURLS").split()]:
        assert url.startswith(f"{address}/{CATALOG['scm_revision']}/")
        name = url.removeprefix(f"{address}/{CATALOG['scm_revision']}/")
        assert (ROOT / name).is_file(), f"{name} is not there"
    assert extension("ICONURL").endswith(f"/Resources/{NAME}.png")


@pytest.mark.parametrize("icon", [ROOT / "Resources" / f"{NAME}.png", MODULE / "Resources" / "Icons" / f"{NAME}.png"])
def test_icons_are_as_slicer_wants_them(icon):
    content = icon.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    assert (width, height, depth, colour) == (128, 128, 8, 6)  # 8-bit RGBA


@pytest.mark.parametrize("name", [*sorted(ADDRESSED), f"{NAME}/CMakeLists.txt"])
def test_no_tabs_and_plain_line_ends(name):
    content = (ROOT / name).read_bytes()
    assert not {b"\t", b"\r"} & {content[i : i + 1] for i in range(len(content))}
    assert content.endswith(b"\n") and not content.endswith(b"\n\n")
    assert not re.search(rb" \n", content)


#: Takes the place of Slicer in CMake's script mode, which needs no compiler: what the module lists is copied into a
#: folder as Slicer's own macros would install it, and what they would refuse is refused. It builds no package.
STAND_IN = """
cmake_policy(VERSION 3.16)
set(scripted lib/Slicer-5.12/qt-scripted-modules)
macro(cmake_minimum_required)
endmacro()
macro(project)
endmacro()
macro(find_package name)
  if(NOT ${name} STREQUAL Slicer)
    message(FATAL_ERROR "no package ${name}")
  endif()
  set(BUILD_TESTING ON)
  set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR ${scripted})
  foreach(file Slicer_USE_FILE Slicer_EXTENSION_GENERATE_CONFIG Slicer_EXTENSION_CPACK)
    set(${file} ${EMPTY})
  endforeach()
endmacro()
macro(add_subdirectory folder)
  set(CMAKE_CURRENT_SOURCE_DIR ${CMAKE_CURRENT_SOURCE_DIR}/${folder})
  include(${CMAKE_CURRENT_SOURCE_DIR}/CMakeLists.txt)
endmacro()
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(NOT DEFINED MY_NAME OR MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule: no NAME, or unknown: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    get_filename_component(folder ${file} DIRECTORY)
    file(COPY ${CMAKE_CURRENT_SOURCE_DIR}/${file} DESTINATION ${INSTALLED}/${scripted}/${folder})
  endforeach()
endmacro()
macro(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT" "" ${ARGN})
  if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT})
    message(FATAL_ERROR "no test ${MY_SCRIPT}")
  endif()
endmacro()
function(install)
  cmake_parse_arguments(MY "" "DESTINATION;COMPONENT" "FILES" ${ARGN})
  file(COPY ${MY_FILES} DESTINATION ${INSTALLED}/${MY_DESTINATION})
endfunction()
include(${CMAKE_CURRENT_SOURCE_DIR}/CMakeLists.txt)
"""


def try_out(folder: Path) -> None:
    """Uses the library of a folder and no other: its calibration, and every shipped network by name."""
    code = """
import DNetRegistrationLib
from DNetRegistrationLib.registration.verification import calibration
from DNetRegistrationLib.networks.weights import available_weights, load_weights
calibration()
print(DNetRegistrationLib.__file__, *[load_weights(name).card["sha256"] for name in available_weights()])
"""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    shipped = [load_weights(name).card["sha256"] for name in available_weights()]
    assert shipped
    assert result.stdout.split() == [str(folder / "DNetRegistrationLib" / "__init__.py"), *shipped]


@pytest.fixture(scope="module")
def scripted(tmp_path_factory) -> Path:
    """The folder of modules that CMake installs."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not on this machine")
    folder = tmp_path_factory.mktemp("cmake")
    script, empty, installed = folder / "stand_in.cmake", folder / "empty.cmake", folder / "installed"
    script.write_text(STAND_IN)
    empty.touch()
    result = subprocess.run(
        [cmake, f"-DEMPTY={empty}", f"-DINSTALLED={installed}", "-P", script], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return installed / "lib" / "Slicer-5.12" / "qt-scripted-modules"


def test_what_cmake_installs_is_the_module(scripted):
    assert there(scripted) == {*listed(MODULE), "DNetRegistrationLib/LICENSE.txt"}
    try_out(scripted)


def run(folder: Path, *words) -> str:
    """The output of the library's command, with the library of a folder and no other."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "DNetRegistrationLib", *map(str, words)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_what_cmake_installs_aligns(scripted, small_pair, tmp_path):
    for role in ("fixed", "moving"):
        write_volume(getattr(small_pair, role), tmp_path / f"{role}.nrrd")
    files = tmp_path / "report.json", tmp_path / "cortices.seg.nrrd"
    scans = tmp_path / "fixed.nrrd", tmp_path / "moving.nrrd"
    run(scripted, "align", *scans, "--report", files[0], "--segmentation", files[1])
    assert json.loads(files[0].read_text())["accepted"] and files[1].is_file()


def test_what_cmake_installs_offers_what_is_there(scripted):
    offered = re.findall(r"^    (\w+)\b", run(scripted, "--help"), re.MULTILINE)
    assert offered == [*COMMANDS] and "demo" not in run(scripted, "--help")
    everything = re.findall(r"^    (\w+)\b", run(MODULE, "--help"), re.MULTILINE)
    assert set(offered) < set(everything) and "train" in everything


def test_what_pip_installs_is_the_library_and_works(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="the build backend that pyproject.toml asks for")
    source = tmp_path / "source"
    shutil.copytree(MODULE, source / NAME, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE.txt"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta as b; print(b.build_sdist('dist')); print(b.build_wheel('dist'))"
    result = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    library = {name for name in there(MODULE) if name.startswith("DNetRegistrationLib/")}

    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(tmp_path / "wheel")
    assert names == library
    try_out(tmp_path / "wheel")

    (sdist,) = (source / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {f"{NAME}/{name}" for name in library} | {"pyproject.toml", "README.md", "LICENSE.txt"} <= names
