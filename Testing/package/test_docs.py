"""README and docs: every command and every piece of Python in them runs, and every link leads somewhere."""

from __future__ import annotations

import csv
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

import DNetRegistrationLib
import numpy as np
import pytest
from DNetRegistrationLib import align, make_pair, write_transform, write_volume
from DNetRegistrationLib.cli.main import COMMANDS, build_parser, main
from DNetRegistrationLib.registration.result import Bone, Repeat
from DNetRegistrationLib.registration.verdict import REASONS
from DNetRegistrationLib.synthesis.dataset import synthesize
from places import LIBRARY, ROOT, environment
from slicer_host.fixtures import host  # noqa: F401

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT).as_posix()}:{self.line}"

    def words(self) -> list[list[str]]:
        """The simple commands of a shell block."""
        commands: list[list[str]] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            commands.append([])
            for word in lexer:
                if set(word) <= set("&|;"):
                    commands.append([])
                else:
                    commands[-1].append(word)
        return [command for command in commands if command]


def blocks(language: str) -> list[Block]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match[1] == language:
                found.append(Block(document, text.count("\n", 0, match.start()) + 1, match[1], match[2]))
    return found


def ours(words: list[str]) -> list[str] | None:
    """The arguments of `dnet-registration`, however it is started; None where something else is."""
    for place, word in enumerate(words):
        if word.rsplit("/", 1)[-1] == "dnet-registration":
            return words[place + 1 :]
        if words[place : place + 2] == ["-m", "DNetRegistrationLib"]:
            rest = words[place + 2 :]
            return rest[1:] if rest[:1] == ["--"] else rest
    return None


def in_running_text() -> list[tuple[str, str]]:
    """Whole commands that stand between backticks, with their document."""
    return [
        (document.name, match[1])
        for document in DOCUMENTS
        for match in re.finditer(
            r"`dnet-registration (\w+ [^`]+)`", FENCE.sub("", document.read_text(encoding="utf-8"))
        )
    ]


SHELL, PYTHON = blocks("bash"), blocks("python")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_readme_has_two_commands_that_set_everything_up():
    """CI and the workflow take them from there by `.ci/readme.py`, on Windows with its own paths."""
    setting_up = [block.text for block in SHELL if block.document.name == "README.md" and "-m venv" in block.text]
    assert [text.replace("\\\n", "").count("\n") for text in setting_up] == [1, 1]
    command = runpy.run_path(str(ROOT / ".ci" / "readme.py"))["command"]
    assert [command(name, windows=False) + "\n" for name in ("demo", "test")] == setting_up
    quick = setting_up[1].rpartition("&& ")[2]
    assert quick.startswith(".venv/bin/pytest ")
    for name in ("CONTRIBUTING.md", "docs/developing.md"):
        assert quick in (ROOT / name).read_text(encoding="utf-8").splitlines(keepends=True)
    for name in ("demo", "test"):
        assert command(name, windows=True).startswith("python -m venv .venv && .venv\\Scripts\\pip install ")
        assert "bin/" not in command(name, windows=True)
        for file in (".ci/run", ".github/workflows/test.yml"):
            text = (ROOT / file).read_text(encoding="utf-8")
            assert f".ci/readme.py {name}" in text or (name, file) == ("demo", ".ci/run")


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_are_commands(block):
    """Those of the program are parsed by its own parser, the others are checked as far as that goes without them."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for words in block.words():
        if (arguments := ours(words)) is not None:
            assert callable(build_parser().parse_args(arguments).run)
        for word in words:
            if match := re.fullmatch(r"\.\[(.+)\]", word):
                assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in match[1].split(","))
            if word.endswith(".py") or word.startswith("Testing/"):
                assert (ROOT / word).exists(), word
        script = next((ROOT / word for word in words if word.startswith("Tools/")), None)
        if script is not None:
            source = script.read_text(encoding="utf-8")
            assert all(f'"{word}"' in source for word in words if word.startswith("--")), words


@pytest.mark.parametrize(("document", "command"), in_running_text())
def test_commands_in_running_text_are_commands(document, command):
    if command.endswith("..."):
        pytest.skip("is cut short")
    if not command.endswith("--help"):
        assert callable(build_parser().parse_args(shlex.split(command)).run)


#: What makes a command small enough to be run here: given after its own options, these count.
SMALLER = {
    "align": "",
    "apply": "",
    "cohort": "--jobs 1",
    "demo": "--size 48 --spacing 0.1",
    "benchmark": "--pairs 1 --accuracy-pairs 1 --fine-pairs 1 --only success --jobs 1",
    "compare": "--pairs 1 --methods full --growth none --size 32 --threads 1",
    "evaluate": "--methods unmoved,full --strategies S1 --tests real --animals 4 --size 32 --spacing 0.16 --jobs 1",
    "synthesize": "--count 1 --size 16 --spacing 0.3",
    # In bfloat16 a processor without it takes minutes.
    "train": "--iterations 2 --batch 2 --micro-batch 1 --validation-pairs 1 --validate-every 2 --jobs 1 "
    "--precision float32",
}
#: Blocks that take more than some seconds even so, by a word that is in no other.
SLOW = (
    "-registration demo",
    "evaluate A/",
    "my-scans",
    "runs/dnet-1",
    "--recipe paper",
    "--quick",
    "--start dnet ",
    "--output results/",
)
#: Starting Slicer is not possible here: `test_logic` runs the script. The benchmark of an hour is only parsed, and what
#: needs a cluster.
#: No cartilage is found in voxels as large as those here.
NOT_RUN = ("Slicer --no-splash", "--pairs 1000", "tcp://", "cartilage before.nrrd")


def smaller(arguments: list[str]) -> list[str]:
    more = shlex.split(SMALLER[arguments[0]])
    if arguments[:2] == ["evaluate", "A/"]:  # scans that are there
        more = shlex.split("--methods unmoved,full --strategies S1 --tests real --jobs 1")
    if arguments[0] == "train" and "--scans" not in arguments:
        more += ["--bones", "2", "--kinds", "tibia"]
    return [*arguments, *more]


def can_run(block: Block) -> bool:
    return not any(words in block.text for words in NOT_RUN) and any(ours(words) for words in block.words())


def speed(block: Block):
    slow = any(words in block.text for words in SLOW)
    return pytest.param(block, marks=pytest.mark.slow if slow else (), id=str(block))


@pytest.fixture
def folder(tmp_path, small_pair, monkeypatch) -> Path:
    """The folder that a reader works in, with scans of the names that the documents use."""
    for place in (".", "mouse01", "mouse02", "mouse03"):
        (tmp_path / place).mkdir(exist_ok=True)
        write_volume(small_pair.fixed, tmp_path / place / "before.nrrd")
        write_volume(small_pair.moving, tmp_path / place / "after.nrrd")
    write_volume(small_pair.moving, tmp_path / "third.nrrd")
    for name in ("aligned", "week4", "week8"):
        write_transform(small_pair.matrix, tmp_path / f"{name}.tfm")
    (tmp_path / "before.fcsv").write_text("# CoordinateSystem = LPS\n1,1,2,3\n")
    (tmp_path / "week4.csv").write_text("x,y,z\n1,2,3\n")
    (tmp_path / "my-scans").mkdir()
    for number in range(3):
        write_volume(small_pair.fixed, tmp_path / "my-scans" / f"bone{number}_pre.nrrd")
        write_volume(small_pair.moving, tmp_path / "my-scans" / f"bone{number}_post.nrrd")
    for number, name in enumerate(("A/m1", "A/m2", "B/m3", "B/m4")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        for word, scan in (("pre", small_pair.fixed), ("post", small_pair.moving)):
            # Copies are refused.
            write_volume(replace(scan, voxels=scan.voxels + number), tmp_path / f"{name}_{word}.nrrd")
    names = ("scans/m1_{}.nrrd pre post", "study/sham/m1_4w_{}.nrrd plain contrast", "study/{}/m1.nrrd dicom bmp")
    for name, *words in map(str.split, names):
        for word, scan in zip(words, (small_pair.fixed, small_pair.moving), strict=True):
            (tmp_path / name.format(word)).parent.mkdir(parents=True, exist_ok=True)
            write_volume(scan, tmp_path / name.format(word))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", [speed(block) for block in SHELL if can_run(block) and "$" not in block.text])
def test_commands_run(block, folder, capsys):
    """One after the other in one folder, as a reader runs them; on small data, and without torchrun."""
    for words in block.words():
        if arguments := ours(words):
            status = main(smaller(arguments))
            # Few pairs need not meet the goals of the benchmark.
            assert status in ((0, 1) if arguments[0] == "benchmark" else (0,)), capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="needs bash")
@pytest.mark.parametrize("block", [block for block in SHELL if can_run(block) and "$" in block.text], ids=str)
def test_scripts_run(block, folder):
    """Loops and conditions, by bash, with the program where the document has it."""
    if "SLURM" in block.text:
        assert bash(block, folder, SLURM_ARRAY_TASK_ID="1").returncode == 0
        assert sorted(path.name for path in (folder / "results" / "m1").iterdir()) == [
            "overlay.png", "report.json", "transform.tfm"
        ]  # fmt: skip
        (folder / "scans" / "m1_post.nrrd").unlink()
        assert bash(block, folder, SLURM_ARRAY_TASK_ID="1").returncode == 2
        return
    (folder / "mouse02" / "after.nrrd").unlink()
    done = bash(block, folder)
    assert done.returncode == 0, done.stderr
    assert "look at mouse02" in done.stdout and "look at mouse01" not in done.stdout
    assert (folder / "mouse03" / "report.json").is_file() and not (folder / "mouse02" / "report.json").exists()


def bash(block: Block, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Runs a block, with the program where the document has it."""
    program = folder / ".venv" / "bin" / "dnet-registration"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m DNetRegistrationLib "$@"\n')
    program.chmod(0o755)
    env = {**environment(), **variables}
    return subprocess.run(["bash", "-c", block.text], env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sed -i is GNU's")
def test_address_is_set_by_the_command(tmp_path):
    (block,) = [block for block in SHELL if block.text.startswith("sed -i")]
    named = "CMakeLists.txt", "DNetRegistration.s4ext", "DNetRegistration.json", "DNetRegistration/DNetRegistration.py"
    (tmp_path / "DNetRegistration").mkdir()
    for name in named:
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["bash", "-euc", block.text], cwd=tmp_path, check=True)
    for name in named:
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "owner/repository" in text and "OWNER_TO_BE_SET" not in text


#: Pieces of the Python that is run, and what makes them small enough.
SMALLER_PYTHON = {
    '"iterations": 300,': '"iterations": 2, "batch": 2, "micro_batch": 1,',
    'scans="my-scans",': 'scans="my-scans", validation_pairs=1, validate_every=2,',
    "pairs=20,": "pairs=1, jobs=1,",
    'align_cohort("scans", "results", options)': 'align_cohort("scans", "results", options, jobs=1)',
    "quick=True": 'quick=True, methods=("unmoved", "full"), tests=("real",), size=32, spacing=0.16, jobs=1',
    "pairs=24,": 'pairs=1, methods=("full",), growth=(), size=32, threads=1,',
}


#: What takes long as it stands, by a word that is in no other.
SLOW_PYTHON = (*SMALLER_PYTHON, "pair.cartilage")


def python(slow: bool):
    # `test_clusters` runs the scripts of that page.
    found = [block for block in PYTHON if "slicer." not in block.text and block.document.name != "clusters.md"]
    return [block for block in found if slow == any(piece in block.text for piece in SLOW_PYTHON)]


@pytest.mark.parametrize("block", python(slow=False), ids=str)
def test_python_runs(block, folder, capsys):
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("block", python(slow=True), ids=str)
def test_python_that_takes_long_runs(block, folder, capsys):
    text = block.text
    for piece, instead in SMALLER_PYTHON.items():
        text = text.replace(piece, instead)
    exec(compile(text, str(block), "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


@pytest.mark.parametrize("block", [block for block in PYTHON if "slicer." in block.text], ids=str)
def test_python_in_slicer_runs(block, host, small_pair, capsys):  # noqa: F811
    import slicer
    from scene_nodes import MODULE, volume_node

    host.load(MODULE)
    volume_node(small_pair.fixed, "PreContrast"), volume_node(small_pair.moving, "PostContrast")
    exec(compile(block.text, str(block), "exec"), {"slicer": slicer, "getNode": slicer.util.getNode})
    assert capsys.readouterr().out.startswith("True")


@pytest.mark.slow
def test_figures_of_the_tutorial_are_those_of_its_scans():
    """The pair of `slicer_module.sample_data`, which is that of the demo."""
    pair = make_pair(0, size=128, spacing=0.04)
    found = align(pair.fixed, pair.moving)
    text = " ".join((ROOT / "docs" / "slicer.md").read_text(encoding="utf-8").split())
    assert (
        f"accepted, Dice {found.dice_before:.2f} before and {found.dice:.2f} after, expected error "
        f"{found.expected_error_um:.0f} µm, rotation {found.rotation_deg:.2f}°, translation "
        f"{np.linalg.norm(found.translation_mm):.2f} mm."
    ) in text


def anchors(document: Path) -> set[str]:
    """Of a document's headings, as GitHub makes them."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document):
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        link = "".join(target)
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        file = document if not path else (document.parent / path).resolve()
        assert file.exists() and file.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(file), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_between_backticks_are_there(document):
    for name in re.findall(r"`([a-zA-Z_.]+/[\w/.]+\.\w+)`", document.read_text(encoding="utf-8")):
        places = (ROOT / name, LIBRARY / name, document.parent / name)
        made = ("runs/", "../shared", "dnet-demo")
        assert name.startswith(made) or any(place.exists() for place in places), name


def test_the_map_shows_every_room():
    text = (ROOT / "docs" / "developing.md").read_text(encoding="utf-8")
    table = text.partition("## The rooms")[2].partition("Rules of the house")[0]
    rooms = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(rooms) == sorted(file.parent.name for file in LIBRARY.glob("*/__init__.py"))


def test_every_document_is_linked():
    reached, left = set(), [ROOT / "README.md"]
    while left:
        document = left.pop()
        reached.add(document)
        links = re.findall(r"\]\(([^)#\s]+\.md)[)#]", document.read_text(encoding="utf-8"))
        left += [path for link in links if (path := (document.parent / link).resolve()) not in reached]
    assert reached == set(DOCUMENTS)


#: Turns of phrase that readers stumbled over, in place of which stand plain scientific terms.
STUMBLED = (
    "turned any way", "any way round", "proposal does not hold", "given by hand", "no one answer", "parts bone from",
    "which place of one", "it comes out too", "in a program that has aligned", "and nothing tells",
    "learning more from each", "gone on with", "having had a GPU", "mend what D-net", "not to be had",
    "nothing vouches for this", "mend {", "no one scan", "no one pose",
)  # fmt: skip


def test_words_are_plain():
    sources = [*LIBRARY.rglob("*.py"), *LIBRARY.rglob("*.jinja"), *LIBRARY.rglob("*.js"), *LIBRARY.parent.rglob("*.ui")]
    for file in [*DOCUMENTS, *sources]:
        text = " ".join(file.read_text(encoding="utf-8").split())
        assert not [words for words in STUMBLED if words in text], file


def test_every_doubt_is_explained():
    """A report holds them for programs, and a cohort's table of columns sends its readers there."""
    sources = "".join(file.read_text(encoding="utf-8") for file in LIBRARY.rglob("*.py"))
    written = re.findall(r'(?:Doubt|GreyFault|because)\(\s*"([\w ]+)"', sources)
    assert {"other bone", "clipped", "mirrored"} <= set(written)
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    table = page.partition("| word |")[2].partition("\n\n")[0]
    explained = re.findall(
        r"`([\w ]+)`", "".join(row.split("|")[1] for row in table.splitlines() if row.count("|") > 2)
    )
    assert {*written, *REASONS, "metal", "check", "loop", "unvouched"} == set(explained)


def test_every_key_of_a_report_and_every_column_of_cartilage_is_explained(alignment, small_pair):
    from cartilages import made_measurement
    from DNetRegistrationLib.outputs.cartilage_table import rows
    from DNetRegistrationLib.outputs.report import report

    found = made_measurement()
    written = report(alignment, small_pair.fixed, small_pair.moving, found)
    for page, head, names in (
        ("command-line.md", "| key |", written),
        ("cartilage.md", "| column |", rows(found)[0]),
    ):
        table = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(head)[2].partition("\n\n")[0]
        first = "".join(row.split("|")[1] for row in table.splitlines() if row.count("|") > 2)
        assert sorted(re.findall(r"`(\w+)`", first)) == sorted(names)
    page = (ROOT / "docs" / "cartilage.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in found.to_dict()["shares"])
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert all(f"`{one.name}`" in page for kind in (Bone, Repeat) for one in fields(kind) if one.name != "masks")


def test_every_column_of_the_truth_of_synthetic_pairs_is_explained(tmp_path):
    with open(synthesize(tmp_path, 1, size=16, spacing=0.3, truth=True), newline="", encoding="utf-8") as stream:
        columns = next(csv.reader(stream))
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    rows = page.partition("| column |")[2].partition("\n\n")[0].splitlines()
    named = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in rows if row.count("|") > 2))
    # The first and the last of a row of columns stand for it.
    assert set(named) == {one for one in columns if not re.fullmatch(r"m(?!00|33)\d\d|(shift|medial)_mm_2", one)}


def test_citation_names_the_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", text, re.MULTILINE)[1] == DNetRegistrationLib.__version__


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_in_help_are_commands(command, capsys):
    assert main([command, "--help"]) == 0
    _, *examples = re.split(r"^examples?:$", capsys.readouterr().out, maxsplit=1, flags=re.MULTILINE)
    assert examples or command == "demo"
    for words in Block(ROOT, 0, "bash", "".join(examples).partition("\n\n")[0]).words():
        assert callable(build_parser().parse_args(ours(words)).run)
