"""The section Cohort of the panel: a folder of scans is checked and aligned, and pairs are opened from the table."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from ..cohort.options import CohortOptions
from ..cohort.result import CohortResult, looked_at, needs_look
from ..cohort.tables import PAGE, RECORD
from ..core.errors import DNetError
from ..core.words import micrometres
from .wording import explain


class CohortSection:
    """The section, closed at first. Its work is on files, and goes on whatever becomes of the scene.

    Args:
        logic: the module's logic.
        layout: of the panel, whose last item is a spacer; the section goes before that.
        opened: called with the fixed and the moving volume node and the transform node of a pair; returns whether
            they are selected now.

    Attributes:
        job: the `cohort_job.CohortJob`; None where none runs.
    """

    def __init__(self, logic, layout, opened) -> None:
        self._logic, self._opened = logic, opened
        self.job = None
        self._pairs = []  # of the rows of the table, where those are results
        self.button = ctk.ctkCollapsibleButton()
        self.button.name = "cohortCollapsibleButton"
        self.button.text = _("Cohort")
        self.button.collapsed = True
        layout.insertWidget(layout.count() - 1, self.button)
        form = qt.QFormLayout(self.button)
        self.scansPath, self.resultsPath = ctk.ctkPathLineEdit(), ctk.ctkPathLineEdit()
        for path, label, tip in (
            (
                self.scansPath,
                _("Scans:"),
                _("A folder with NAME_pre and NAME_post for each pair; or the path of a list of pairs, a CSV file."),
            ),
            (self.resultsPath, _("Results:"), _("A folder for the results; those of an earlier run are shown.")),
        ):
            path.filters = ctk.ctkPathLineEdit.Dirs
            path.toolTip = tip
            path.connect("currentPathChanged(QString)", self._changed)
            form.addRow(label, path)
        self.checkButton, self.alignButton = qt.QPushButton(_("Check")), qt.QPushButton()
        self.checkButton.toolTip = _("Lists the pairs and all problems, by headers and masks alone. Writes nothing.")
        self.alignButton.toolTip = _("Aligns all pairs that are not done yet, or that have changed.")
        self.pageButton = qt.QPushButton(_("Open the page"))
        self.pageButton.toolTip = _("Opens the page on which to check all pairs, in the browser.")
        buttons = qt.QHBoxLayout()
        for button in (self.checkButton, self.alignButton, self.pageButton):
            buttons.addWidget(button)
        form.addRow(buttons)
        self.progressBar, self.statusLabel, self.table = qt.QProgressBar(), qt.QLabel(), qt.QTableWidget()
        self.statusLabel.wordWrap = True
        self.statusLabel.setTextFormat(qt.Qt.PlainText)  # names of files are in it
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.table.toolTip = _("A double click on a pair that was aligned loads it.")
        for widget in (self.progressBar, self.statusLabel, self.table):
            form.addRow(widget)
        self.checkButton.connect("clicked(bool)", self._check)
        self.alignButton.connect("clicked(bool)", self._align)
        self.pageButton.connect("clicked(bool)", self._openPage)
        self.table.connect("cellDoubleClicked(int,int)", self._openPair)
        self._update()

    def close(self) -> None:
        """Ends what runs; the same again goes on from there."""
        job, self.job = self.job, None
        if job is not None:
            job.cancel()

    @property
    def _results(self) -> Path:
        return Path(self.resultsPath.currentPath.strip()).expanduser().absolute()

    def _changed(self, path=None) -> None:
        """Other scans or results are chosen: what is shown is not theirs."""
        if self.job is None:
            self._tell("")
            self._showResults()
            self._update()

    def _check(self, clicked=False) -> None:
        self._start("check")

    def _align(self, clicked=False) -> None:
        if self.job is not None:
            self.close()
            self._tell(_("Cancelled. What is done stays; the same again goes on from there."))
            self._update()
            return
        if self._mayReplace():
            self._start("align")

    def _mayReplace(self) -> bool:
        """Whether results of a run with other options, where there are any, may be replaced: asks."""
        told, usual = self._record(), CohortOptions().told()
        if told is None or told.options == usual:
            return True
        others = set(told.options.get("outputs", ())) - set(usual["outputs"]) | (told.options.keys() - usual.keys())
        question = _(
            "The results in this folder are of a run with other options ({names}).\n\n"
            "Align all aligns each pair anew without them. What only they gave, such as subtractions or cartilage, is "
            "removed. Choose another folder to keep it."
        )
        names = ", ".join(name.replace("_", " ") for name in sorted(others)) or _("fewer outputs")
        return slicer.util.confirmOkCancelDisplay(question.format(names=names))

    def _start(self, what: str) -> None:
        if what == "align":
            try:
                self._logic.ensureTorch()
            except DNetError as error:
                self._tell(explain(error))
                return
            if self.job is not None:  # installing PyTorch takes minutes, in which it can be clicked again
                return
        scans = str(Path(self.scansPath.currentPath.strip()).expanduser().absolute())
        results = str(self._results) if self.resultsPath.currentPath.strip() else ""
        self._showRows([], [])
        self._progressed(0.0, _("Starting"))

        def finished(job, error) -> None:
            self.job = None
            if error is not None:
                logging.error("%s\n%s", error, "\n".join(job.log))
                self._tell(micrometres(str(error)))
            elif what == "check":
                self._showFound(job.rows or [])
            else:
                self._showResults()
            self._update()

        job = self._logic.startCohort(what, scans, results, self._progressed, finished)
        self.job = None if job.over else job  # one that cannot be started has told so already
        self._update()

    def _progressed(self, fraction: float, message: str) -> None:
        self.progressBar.value = round(100 * fraction)
        self._tell(micrometres(message))

    def _showFound(self, rows) -> None:
        """The table of a check: those with a problem first."""
        names = [_("Pair"), _("Fixed"), _("Moving"), _("Voxels"), _("Problem")]
        self._showRows(names, sorted(rows, key=lambda row: row[4] == "-"))
        problems = sum(row[4] != "-" for row in rows)
        pairs = sum(row[0] not in ("", "-") for row in rows)
        self._tell(_("Pairs: {pairs}, problems: {problems}").format(pairs=pairs, problems=problems))

    def _record(self) -> CohortResult | None:
        """What lies in the folder of results; None where that is nothing, or, which is told, another thing."""
        if not self.resultsPath.currentPath.strip():
            return None
        try:
            return CohortResult.from_dict(json.loads((self._results / RECORD).read_text(encoding="utf-8")))
        except OSError:
            return None
        except (ValueError, KeyError, TypeError):
            self._tell(_("{path}: is no result of a cohort").format(path=self._results / RECORD))
            return None

    def _showResults(self) -> None:
        """The table of the folder of results, those first that need a look; nothing where there is none."""
        self._showRows([], [])
        told = self._record()
        if told is None:
            return
        pairs = needs_look(told.pairs)
        # Alignments that nobody asked for are told where something is wrong with them.
        closing = [pair for pair in needs_look(told.closing) if looked_at(pair)]
        status = [*map(_status, pairs), *(_("{status}, to close loops").format(status=_status(one)) for one in closing)]
        rows = [
            (
                pair.name,
                said,
                _number(pair.expected_error_um, ".1f"),
                _number(pair.dice, ".2f"),
                micrometres(" ".join(text for text in (pair.verdict, pair.remedy, *pair.warnings) if text)),
            )
            for pair, said in zip([*pairs, *closing], status, strict=True)
        ]
        names = [_("Pair"), _("Status"), _("Expected error (µm)"), _("Dice"), _("Verdict and warnings")]
        self._showRows(names, rows)
        self._pairs = pairs
        counts = told.counts
        self._tell(
            _("Pairs: {pairs} ({accepted} accepted, {refused} not accepted, {failed} failed)").format(
                pairs=len(pairs), **counts
            )
        )

    def _showRows(self, names, rows) -> None:
        self._pairs = []
        self.table.setRowCount(len(rows))
        self.table.setColumnCount(len(names))
        self.table.setHorizontalHeaderLabels(names)
        for number, row in enumerate(rows):
            for column, text in enumerate(row):
                self.table.setItem(number, column, qt.QTableWidgetItem(text))
        self.table.resizeColumnsToContents()

    def _openPage(self, clicked=False) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._results / PAGE)))

    def _openPair(self, row: int, column: int) -> None:
        """Loads a pair that was aligned; of another one the verdict is told."""
        if row >= len(self._pairs):
            return
        pair = self._pairs[row]
        if pair.status == "failed":
            self._tell(micrometres(f"{pair.name}: {pair.verdict} {pair.remedy}".strip()))
            return
        from .cohort_pair import load_pair

        try:
            with slicer.util.WaitCursor():
                nodes = load_pair(self._results, pair)
        except DNetError as error:
            self._tell(micrometres(str(error)))
        except Exception as problem:
            logging.exception("The pair could not be loaded")
            self._tell(_("{name} could not be loaded: {problem}").format(name=pair.name, problem=problem))
        else:
            if not self._opened(*nodes):
                self._tell(
                    _("{name} is loaded; it can be selected when the alignment has ended.").format(name=pair.name)
                )

    def _tell(self, text: str) -> None:
        self.statusLabel.text = text
        self.statusLabel.visible = bool(text)

    def _update(self) -> None:
        running = self.job is not None
        scans, results = (bool(path.currentPath.strip()) for path in (self.scansPath, self.resultsPath))
        self.alignButton.text = _("Cancel") if running else _("Align all")
        self.alignButton.enabled = running or (scans and results)
        self.checkButton.enabled = not running and scans
        self.pageButton.enabled = not running and results and (self._results / PAGE).is_file()
        self.scansPath.enabled = self.resultsPath.enabled = not running
        self.progressBar.visible = running
        self.table.visible = self.table.rowCount > 0


def _status(pair) -> str:
    if pair.reserved:
        return _("accepted with reservations")
    return {"accepted": _("accepted"), "refused": _("not accepted"), "failed": _("failed")}[pair.status]


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)
