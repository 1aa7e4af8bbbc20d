"""Dialogs that a test answers: message boxes and file dialogs are recorded, never waited for.

A message box is really executed, with its nested event loop, and the answering button really clicked. A question (more
than one button) for which the test has given no answer is an error of the test, and is answered with its escape button.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from PySide6 import QtCore, QtWidgets

from . import pythonqt
from .pythonqt import QtObject, wrapped_class

StandardButton = QtWidgets.QMessageBox.StandardButton


@dataclass
class Dialog:
    """One dialog that was shown: what it said, which buttons it had, and which was clicked."""

    kind: str
    title: str = ""
    text: str = ""
    informative_text: str = ""
    detailed_text: str = ""
    buttons: list[str] = field(default_factory=list)
    answer: object = None


class UnansweredQuestion(AssertionError):
    """A module asked something that the test did not expect."""


class Dialogs:
    """All dialogs shown since the last `clear`, oldest first, and the answers still to be given."""

    def __init__(self) -> None:
        self.shown: list[Dialog] = []
        self._answers: deque = deque()

    def will_answer(self, *answers) -> None:
        """Queue answers for the questions to come.

        For a message box the text of the button ("Yes", "Cancel", "Install"); for a file dialog the path or paths, or
        "" for Cancel; for the renaming of a node its new name.
        """
        self._answers.extend(answers)

    @property
    def unused_answers(self) -> list:
        return list(self._answers)

    def clear(self) -> None:
        self.shown.clear()
        self._answers.clear()

    @property
    def texts(self) -> list[str]:
        return [dialog.text for dialog in self.shown]

    def show(self, dialog: Dialog):
        """Record a dialog and give its answer; the only button of a mere message needs no queued answer."""
        self.shown.append(dialog)
        if len(dialog.buttons) == 1:
            dialog.answer = dialog.buttons[0]
        elif self._answers:
            dialog.answer = self._answers.popleft()
        else:
            pythonqt.errors.append(UnansweredQuestion(f"no answer was queued for: {dialog}"))
        return dialog.answer


dialogs = Dialogs()

_ICONS = {
    QtWidgets.QMessageBox.Icon.Information: "information",
    QtWidgets.QMessageBox.Icon.Warning: "warning",
    QtWidgets.QMessageBox.Icon.Critical: "critical",
    QtWidgets.QMessageBox.Icon.Question: "question",
    QtWidgets.QMessageBox.Icon.NoIcon: "message",
}

_DECLINING = (QtWidgets.QMessageBox.ButtonRole.RejectRole, QtWidgets.QMessageBox.ButtonRole.NoRole)


class _AnsweredMessageBox:
    """QMessageBox whose exec_ is answered by the test."""

    def deleteLater(self):
        """`slicer.util.messageBox` asks for this before exec_; without an outer event loop, as in a test, Qt would
        take the box away inside exec_."""
        self._delete_after_exec = True

    def exec_(self):
        base = QtWidgets.QMessageBox
        if base.standardButtons(self) == StandardButton.NoButton and not base.buttons(self):
            base.setStandardButtons(self, StandardButton.Ok)  # as Qt does when it is shown
        buttons = {button.text().replace("&", ""): button for button in base.buttons(self)}
        dialog = Dialog(
            _ICONS[base.icon(self)],
            base.windowTitle(self).strip(),
            base.text(self),
            base.informativeText(self),
            base.detailedText(self),
            [text for text in buttons if text != "Show Details..."],
        )
        answer = dialogs.show(dialog)
        button = buttons.get(answer)
        if button is None:
            if answer is not None:
                pythonqt.errors.append(AssertionError(f"there is no button {answer!r} in {dialog}"))
            button = next((found for found in buttons.values() if base.buttonRole(self, found) in _DECLINING), None)
            button = button or next(iter(buttons.values()))
        QtCore.QTimer.singleShot(0, button.click)
        result = base.exec(self)
        clicked = base.clickedButton(self)
        if getattr(self, "_delete_after_exec", False):
            base.deleteLater(self)
        standard = base.standardButton(self, clicked) if clicked else StandardButton.NoButton
        return standard if standard != StandardButton.NoButton else result

    def exec(self):
        return self.exec_()


def _static_message(kind: str):
    def ask(parent, title, text, buttons=None, default=None):
        box = QMessageBox(parent)
        box.setIcon(next(icon for icon, name in _ICONS.items() if name == kind))
        box.setWindowTitle(title)
        box.setText(text)
        standard = StandardButton.Yes | StandardButton.No if kind == "question" else StandardButton.Ok
        box.setStandardButtons(standard if buttons is None else buttons)
        return box.exec_()

    return staticmethod(ask)


QMessageBox = wrapped_class(
    QtWidgets.QMessageBox,
    exec_=_AnsweredMessageBox.exec_,
    exec=_AnsweredMessageBox.exec,
    deleteLater=_AnsweredMessageBox.deleteLater,
    **{kind: _static_message(kind) for kind in ("information", "warning", "critical", "question")},
)


class ctkMessageBox(_AnsweredMessageBox, QtObject, QtWidgets.QMessageBox):
    """Slicer's message box; "Don't show again" is kept but never acted on."""

    _offered = True

    def __init__(self, parent=None):
        super().__init__(parent)
        self._dont_show_again = False
        self._dont_show_again_key = ""

    dontShowAgain = QtCore.Property(
        bool, lambda self: self._dont_show_again, lambda self, value: setattr(self, "_dont_show_again", value)
    )
    dontShowAgainSettingsKey = QtCore.Property(
        str, lambda self: self._dont_show_again_key, lambda self, value: setattr(self, "_dont_show_again_key", value)
    )


def _chosen(kind: str):
    def ask(parent=None, title="", *rest, **options):
        answer = dialogs.show(Dialog(kind, title))
        return answer if answer is not None else ("" if kind != "getOpenFileNames" else [])

    return staticmethod(ask)


# PythonQt returns the path alone, without the filter that PySide6 adds.
QFileDialog = wrapped_class(
    QtWidgets.QFileDialog,
    **{
        kind: _chosen(kind)
        for kind in ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory")
    },
)

pythonqt.qt.QMessageBox = QMessageBox
pythonqt.qt.QFileDialog = QFileDialog
