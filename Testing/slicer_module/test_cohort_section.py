"""The section Cohort of the panel: what it starts, what it shows, and what it says of a pair that it loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cohort_results import failed_pair, made_cohort, made_pair, refused_pair
from DNetRegistrationLib import Volume, make_pair, write_volume
from DNetRegistrationLib.cohort.options import CohortOptions
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.slicer_module import events
from scene_nodes import FLIP, GRIDS, INDICES, MODULE, aligned, positions, rigid


@pytest.fixture
def panel(host, monkeypatch):
    host.load(MODULE)
    from DNetRegistrationLib.slicer_module.logic import DNetRegistrationLogic

    monkeypatch.setattr(DNetRegistrationLogic, "prepare", lambda self: None)
    opened = host.open("DNetRegistration")
    opened.parent.show()
    opened.cohort.button.collapsed = False
    return opened


@pytest.fixture
def section(panel, tmp_path):
    """The section with folders chosen, and a process that waits for what a test tells it."""
    panel.cohort.scansPath.currentPath = str(tmp_path / "scans")
    panel.cohort.resultsPath.currentPath = str(tmp_path / "results")
    panel.logic.launch = Launcher()
    return panel.cohort


class Launcher:
    """In place of a process: says what it is told to."""

    pid, killed = 0, False

    def __call__(self, command, environment, output, errors, end):
        self.command, self.environment = command, environment
        self.output, self.errors, self.end = output, errors, end
        return self

    def tell(self, event, **values):
        self.output(events.to_line(event, **values).encode() + b"\n")

    def kill(self):
        self.killed = True
        self.end(-9)  # as Qt tells it, before kill returns


def rows(section) -> list[list[str]]:
    table = section.table
    return [[table.item(r, c).text() for c in range(table.columnCount)] for r in range(table.rowCount)]


def write_record(results: Path, *pairs) -> None:
    results.mkdir(exist_ok=True)
    (results / "cohort.json").write_text(json.dumps(made_cohort(*pairs).to_dict()))


def test_closed_and_idle_at_first(host):
    host.load(MODULE)
    section = host.open("DNetRegistration").cohort
    assert section.button.collapsed and section.button.text == "Cohort"
    assert not any(button.enabled for button in (section.checkButton, section.alignButton, section.pageButton))
    section.scansPath.currentPath = "/scans"
    assert section.checkButton.enabled and not section.alignButton.enabled
    section.resultsPath.currentPath = "/no/such/results"
    assert section.alignButton.enabled and not section.pageButton.enabled


def test_a_check_lists_problems_first(section, panel, tmp_path, monkeypatch):
    monkeypatch.setattr(panel.logic, "ensureTorch", lambda: pytest.fail("a check needs no PyTorch"))
    section.checkButton.click()
    process = panel.logic.launch
    assert process.command[1:] == [
        "-m", "DNetRegistrationLib.slicer_module.cohort_worker", "check", str(tmp_path / "scans"),
        str(tmp_path / "results"),
    ]  # fmt: skip
    assert process.environment["PYTHONSAFEPATH"] == "1"
    assert section.alignButton.text == "Cancel" and not section.checkButton.enabled
    good, bad = ["a", "a_pre.nrrd", "a_post.nrrd", "9 x 9 x 9", "-"], ["<b>", "b_pre", "-", "-", "missing partner: b"]
    process.tell(events.FOUND, rows=[good, bad])
    process.end(0)
    assert rows(section) == [bad, good] and section.statusLabel.text == "Pairs: 2, problems: 1"
    assert section.alignButton.text == "Align all" and section.checkButton.enabled


def test_the_table_has_those_first_that_need_a_look(section, panel, tmp_path, monkeypatch):
    import qt

    section.alignButton.click()
    process = panel.logic.launch
    assert process.command[3:] == ["align", str(tmp_path / "scans"), str(tmp_path / "results")]
    process.tell(events.PROGRESS, fraction=0.4, message="1 of 3 (1 accepted); a: to within about 3.4 um")
    assert section.progressBar.value == 40 and section.statusLabel.text.endswith("about 3.4 µm")
    write_record(tmp_path / "results", made_pair("a", warnings=("Cut off.",)), refused_pair("b"), failed_pair("c"))
    (tmp_path / "results" / "cohort.html").write_text("")
    process.end(0)
    assert [row[:4] for row in rows(section)] == [
        ["c", "failed", "", ""], ["b", "not accepted", "900.0", "0.30"], ["a", "accepted", "3.4", "0.90"]
    ]  # fmt: skip
    assert rows(section)[2][4] == "Accepted: the bones lie on each other, to within about 3.4 µm. Cut off."
    assert section.statusLabel.text == "Pairs: 3 (1 accepted, 1 not accepted, 1 failed)"
    opened = []
    monkeypatch.setattr(qt, "QDesktopServices", type("Services", (), {"openUrl": opened.append}))
    section.pageButton.click()
    assert opened[0].toLocalFile() == str(tmp_path / "results" / "cohort.html")
    # Of a pair that failed there is nothing to load.
    section.table.cellDoubleClicked.emit(0, 0)
    assert section.statusLabel.text == "c: c_post.nrrd: is cut short. copy it again"
    # Those of another folder are not shown as its own.
    section.resultsPath.currentPath = str(tmp_path)
    assert rows(section) == [] and not section.pageButton.enabled


def test_results_of_a_run_with_other_options_are_replaced_only_where_the_user_says_so(host, section, panel, tmp_path):
    (tmp_path / "results").mkdir()

    def written(**options) -> None:
        told = json.dumps(made_cohort(made_pair("a"), options=options).to_dict())
        (tmp_path / "results/cohort.json").write_text(told)

    usual = CohortOptions().told()
    written(outputs=[*usual["outputs"], "cartilage", "subtraction"], check=True)
    host.dialogs.will_answer("Cancel")
    section.alignButton.click()
    assert section.job is None and section.alignButton.text == "Align all"
    assert "a run with other options (cartilage, check, subtraction)" in host.dialogs.texts[0]
    host.dialogs.will_answer("OK")
    section.alignButton.click()
    assert section.job is not None and panel.logic.launch.command[3] == "align"
    panel.logic.launch.end(0)
    # Of its own results nothing is asked.
    written(**usual)
    section.alignButton.click()
    assert section.job is not None and len(host.dialogs.texts) == 2


def test_alignments_that_close_loops_are_told_where_something_is_wrong(section, tmp_path):
    closing = (made_pair("w4 to w8", warnings=("Slices may be missing.",)), made_pair("good"), refused_pair("bad"))
    (tmp_path / "results").mkdir()
    told = json.dumps(made_cohort(made_pair("a"), closing=closing).to_dict())
    (tmp_path / "results/cohort.json").write_text(told)
    section.resultsPath.currentPath = str(tmp_path)
    section.resultsPath.currentPath = str(tmp_path / "results")
    assert [row[:2] for row in rows(section)] == [
        ["a", "accepted"], ["bad", "not accepted, to close loops"], ["w4 to w8", "accepted, to close loops"],
    ]  # fmt: skip
    assert "Slices may be missing." in rows(section)[2][4]
    section.table.cellDoubleClicked.emit(1, 0)  # it has no outputs to load
    assert section.statusLabel.text.startswith("Pairs: 1 (1 accepted")


def test_cancel_ends_the_process(section, panel):
    section.alignButton.click()
    process = panel.logic.launch
    section.alignButton.click()
    assert process.killed and section.job is None and "goes on from there" in section.statusLabel.text
    assert section.alignButton.text == "Align all" and section.alignButton.enabled
    section.alignButton.click()
    process.killed = False
    panel.cleanup()
    assert process.killed and section.job is None


@pytest.mark.parametrize("status", [2, -9, None])
def test_failures_are_told(section, panel, status):
    section.alignButton.click()
    process = panel.logic.launch
    process.errors(b"Traceback\n")
    if status == 2:
        error = FileError("/scans: holds no scan, 5 um", "give the folder of the scans")
        process.tell(events.ERROR, **events.error_values(error))
    process.end(status)
    told = section.statusLabel.text
    expected = "/scans: holds no scan, 5 µm; give the folder of the scans" if status == 2 else "ended unexpectedly"
    assert expected in told and section.job is None and section.alignButton.text == "Align all"


def test_a_process_that_cannot_be_started(section, panel):
    def launch(command, environment, output, errors, end):
        end(None)
        return Launcher()

    panel.logic.launch = launch
    section.alignButton.click()
    assert "ended unexpectedly" in section.statusLabel.text and section.job is None


def stored_pair(folder: Path, matrix, **changes):
    """A cohort of one pair, with its record and its report as a run leaves them; nothing is aligned."""
    from DNetRegistrationLib.bone.scan_file import ScanFile
    from DNetRegistrationLib.cohort.fingerprint import content_hash, stamp
    from DNetRegistrationLib.cohort.options import CohortOptions
    from DNetRegistrationLib.cohort.pairs import Pair
    from DNetRegistrationLib.cohort.store import opened_results
    from DNetRegistrationLib.cohort.task import Done

    paths = {}
    for number, (role, grid) in enumerate((("fixed", "oblique"), ("moving", "far"))):
        spacing, direction, origin, size = GRIDS[grid]
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = direction * spacing, origin
        voxels = np.random.default_rng(number).integers(0, 200, size[::-1]).astype(np.int16)
        paths[role] = folder / f"{role}.nrrd"
        write_volume(Volume(voxels, FLIP @ affine), paths[role])
    pair = Pair(name="m1", **{role: ScanFile(str(path)) for role, path in paths.items()})
    options = CohortOptions(outputs={"report": ".json"}, **changes)
    with opened_results(folder / "results") as results:
        task = results.task(pair, options)
        (Path(task.work) / "report.json").write_text(json.dumps(aligned(matrix).to_dict()))
        outputs = {"report": f"{task.folder}/report.json"}
        files = {role: str(path) for role, path in paths.items()}
        result = made_pair("m1", folder=task.folder, outputs=outputs, **files)
        results.keep(task, Done(result, True, content_hash(pair, options)), stamp(pair, options))
    write_record(folder / "results", result)
    return paths


def test_a_double_click_loads_a_pair_as_it_was_aligned(section, panel, tmp_path):
    matrix = rigid(3)
    paths = stored_pair(tmp_path, matrix)
    section.resultsPath.currentPath = ""
    section.resultsPath.currentPath = str(tmp_path / "results")
    section.table.cellDoubleClicked.emit(0, 2)
    parameters = panel._parameterNode
    fixed, moving = parameters.fixedVolume, parameters.movingVolume
    assert (fixed.GetName(), moving.GetName()) == ("m1 fixed", "m1 moving")
    assert panel.ui.verdictLabel.text.startswith("Accepted") and "#d7f0dd" in panel.ui.verdictLabel.styleSheet
    # Points of the moving scan come to lie where the inverse of the matrix takes them.
    spacing, direction, origin, _size = GRIDS["far"]
    for index, now in zip(INDICES, positions(moving), strict=True):
        there = FLIP[:3, :3] @ (direction @ (np.multiply(index, spacing)) + origin)
        np.testing.assert_allclose(now, (np.linalg.inv(matrix) @ (*there, 1))[:3], atol=1e-6)
    # Another scan in its place was not aligned: nothing vouches for it.
    scan = np.random.default_rng(9).integers(0, 200, GRIDS["far"][3][::-1]).astype(np.int16)
    write_volume(Volume(scan, np.diag((0.1, 0.1, 0.1, 1.0))), paths["moving"])
    section.table.cellDoubleClicked.emit(0, 0)
    assert parameters.movingVolume.GetName() == "m1 moving_1"
    assert "the verdict does not apply to this" in panel.ui.verdictLabel.text
    assert "#d7f0dd" not in panel.ui.verdictLabel.styleSheet


def test_a_pair_that_is_loaded_during_an_alignment_waits(section, panel, tmp_path):
    stored_pair(tmp_path, rigid(3))
    section._showResults()
    panel._run.preparing = True
    section.table.cellDoubleClicked.emit(0, 0)
    assert "when the alignment has ended" in section.statusLabel.text and panel._parameterNode.fixedVolume is None
    panel._run.preparing = False


def test_weights_of_ones_own_are_vouched_for_while_they_are_the_same(section, panel, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"x")
    stored_pair(tmp_path, rigid(3), weights=str(weights))
    section._showResults()
    section.table.cellDoubleClicked.emit(0, 0)
    assert panel.ui.verdictLabel.text.startswith("Accepted")
    weights.write_bytes(b"y")
    section.table.cellDoubleClicked.emit(0, 0)
    assert "the verdict does not apply to this" in panel.ui.verdictLabel.text


def test_a_pair_whose_scan_is_gone(section, panel, tmp_path):
    import slicer

    paths = stored_pair(tmp_path, rigid(3))
    paths["moving"].unlink()
    section._showResults()
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    section.table.cellDoubleClicked.emit(0, 0)
    assert "moving.nrrd" in section.statusLabel.text and slicer.mrmlScene.GetNumberOfNodes() == nodes


@pytest.mark.slow
def test_a_real_cohort(host, section, panel, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    panel.logic.launch = None
    like = {"size": 40, "spacing": 0.12}
    for name, pair in {"m1": make_pair(1, **like), "m2": make_pair(2, impostor="animal", **like)}.items():
        write_volume(pair.fixed, scans / f"{name}_pre.nrrd")
        write_volume(pair.moving, scans / f"{name}_post.nrrd")
    section.checkButton.click()
    host.wait_until(lambda: section.job is None, 120)
    assert [row[0] for row in rows(section)] == ["m1", "m2"] and section.statusLabel.text == "Pairs: 2, problems: 0"
    section.alignButton.click()
    host.wait_until(lambda: section.job is None, 300)
    assert [row[:2] for row in rows(section)] == [["m2", "not accepted"], ["m1", "accepted"]], section.statusLabel.text
    assert section.pageButton.enabled
    section.table.cellDoubleClicked.emit(1, 0)
    assert panel.ui.verdictLabel.text.startswith("Accepted") and "#d7f0dd" in panel.ui.verdictLabel.styleSheet
    section.table.cellDoubleClicked.emit(0, 0)
    assert panel.ui.verdictLabel.text.startswith("Not accepted")
