"""The module `ctk`: the widgets of the Common Toolkit that a module's panel uses, with CTK's properties and signals."""

from __future__ import annotations

import types

from PySide6 import QtCore, QtGui, QtWidgets

from .dialogs import Dialog, ctkMessageBox, dialogs
from .pythonqt import QtObject

ctk = types.ModuleType("ctk", "The host's stand-in for the Common Toolkit's Python module.")
ctk.ctkMessageBox = ctkMessageBox


def kept(kind, name: str, default):
    """A Qt property that is only kept, under `_<name>`."""
    attribute = f"_{name}"
    return QtCore.Property(
        kind, lambda self: getattr(self, attribute, default), lambda self, value: setattr(self, attribute, value)
    )


class _Contents(QtCore.QObject):
    """The children of a collapsed widget: hidden, with what they shall be when it opens.

    A child that is shown or hidden meanwhile stays hidden, and is shown or not when the widget opens.
    """

    def __init__(self, owner):
        super().__init__(owner)
        self._owner, self._wished, self._own = owner, {}, False

    def hide(self) -> None:
        for child in QtCore.QObject.children(self._owner):
            if isinstance(child, QtWidgets.QWidget):
                self._wished[child] = not child.isHidden()
                child.installEventFilter(self)
                self._set(child, False)

    def show(self) -> None:
        wished, self._wished = self._wished, {}
        for child, visible in wished.items():
            child.removeEventFilter(self)
            self._set(child, visible)

    def _set(self, child, visible: bool) -> None:
        self._own = True
        QtWidgets.QWidget.setVisible(child, visible)
        self._own = False
        # Hidden by the section, not by the module: or Qt would not tell when the module hides it as well.
        child.setAttribute(QtCore.Qt.WidgetAttribute.WA_WState_ExplicitShowHide, not visible and not self._wished)

    def eventFilter(self, child, event) -> bool:
        kinds = QtCore.QEvent.Type
        if event.type() in (kinds.ShowToParent, kinds.HideToParent) and child in self._wished and not self._own:
            self._wished[child] = event.type() == kinds.ShowToParent
            self._set(child, False)
        return False


class ctkCollapsibleButton(QtObject, QtWidgets.QAbstractButton):
    """A title bar over contents that it hides: `checked` is the opposite of `collapsed`."""

    _offered = True
    contentsCollapsed = QtCore.Signal(bool)
    collapsedHeight = kept(int, "collapsedHeight", 14)
    flat = kept(bool, "flat", False)
    contentsLineWidth = kept(int, "contentsLineWidth", 1)
    contentsMidLineWidth = kept(int, "contentsMidLineWidth", 0)

    def __init__(self, text="", parent=None):
        text, parent = (text, parent) if isinstance(text, str) else ("", text)
        QtWidgets.QAbstractButton.__init__(self, parent)
        base = QtWidgets.QAbstractButton
        base.setText(self, text)
        base.setCheckable(self, True)
        base.setChecked(self, True)
        self._collapsed = False
        policy = QtWidgets.QSizePolicy
        base.setSizePolicy(self, policy.Policy.Minimum, policy.Policy.Preferred)
        base.setContentsMargins(self, 0, self._bar_height(), 0, 0)
        base.setBackgroundRole(self, QtGui.QPalette.ColorRole.Window)
        self._full_height = base.maximumHeight(self)
        self._contents = _Contents(self)
        base.toggled.__get__(self).connect(lambda checked: self.collapse(not checked))

    def _bar_height(self) -> int:
        return QtWidgets.QAbstractButton.fontMetrics(self).height() + 8

    def collapse(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        base = QtWidgets.QAbstractButton
        self._collapsed = collapsed
        if collapsed:
            self._contents.hide()
            base.setMaximumHeight(self, self._bar_height() + getattr(self, "_collapsedHeight", 14))
        else:
            base.setMaximumHeight(self, self._full_height)
            self._contents.show()
        base.updateGeometry(self)
        self.contentsCollapsed(collapsed)

    def setCollapsed(self, collapsed: bool) -> None:
        QtWidgets.QAbstractButton.setChecked(self, not collapsed)

    collapsed = QtCore.Property(bool, lambda self: self._collapsed, setCollapsed, notify=contentsCollapsed)

    def minimumSizeHint(self):
        hint = QtWidgets.QAbstractButton.minimumSizeHint(self)
        layout = QtWidgets.QAbstractButton.layout(self)
        width = QtWidgets.QAbstractButton.fontMetrics(self).horizontalAdvance(QtWidgets.QAbstractButton.text(self)) + 40
        if layout is not None and not self._collapsed:
            hint = layout.totalMinimumSize()
        return QtCore.QSize(max(width, hint.width()), max(self._bar_height(), 0 if self._collapsed else hint.height()))

    def sizeHint(self):
        layout = QtWidgets.QAbstractButton.layout(self)
        least = ctkCollapsibleButton.minimumSizeHint(self)  # not self.minimumSizeHint, which is a Qt property
        return least if layout is None or self._collapsed else layout.totalSizeHint().expandedTo(least)

    def hitButton(self, position) -> bool:
        return position.y() <= self._bar_height()

    def paintEvent(self, event):
        base = QtWidgets.QAbstractButton
        painter = QtGui.QPainter(self)
        style = base.style(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.state |= QtWidgets.QStyle.StateFlag.State_Raised
        option.rect.setHeight(self._bar_height())
        style.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option, painter, self)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        side = self._bar_height() - 10
        arrow.rect = QtCore.QRect(6, 5, side, side)
        element = QtWidgets.QStyle.PrimitiveElement
        which = element.PE_IndicatorArrowRight if self._collapsed else element.PE_IndicatorArrowDown
        style.drawPrimitive(which, arrow, painter, self)
        text_area = option.rect.adjusted(side + 12, 0, -4, 0)
        alignment = QtCore.Qt.AlignmentFlag.AlignLeft | QtCore.Qt.AlignmentFlag.AlignVCenter
        painter.drawText(text_area, alignment | QtCore.Qt.TextFlag.TextShowMnemonic, base.text(self))
        painter.end()


class ctkCollapsibleGroupBox(QtObject, QtWidgets.QGroupBox):
    """A group box that hides its contents when unchecked."""

    _offered = True

    def __init__(self, title="", parent=None):
        title, parent = (title, parent) if isinstance(title, str) else ("", title)
        QtWidgets.QGroupBox.__init__(self, title, parent)
        base = QtWidgets.QGroupBox
        base.setCheckable(self, True)
        base.setChecked(self, True)
        self._contents = _Contents(self)
        base.toggled.__get__(self).connect(lambda shown: self._contents.show() if shown else self._contents.hide())

    collapsed = QtCore.Property(
        bool,
        lambda self: not QtWidgets.QGroupBox.isChecked(self),
        lambda self, value: QtWidgets.QGroupBox.setChecked(self, not value),
    )
    collapsedHeight = kept(int, "collapsedHeight", 14)


class ctkSliderWidget(QtObject, QtWidgets.QWidget):
    """A slider and a spin box with one value, a float. While the slider is dragged with tracking off, only
    `valueIsChanging` is emitted."""

    _offered = True
    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)
    decimalsChanged = QtCore.Signal(int)
    tracking = kept(bool, "tracking", True)
    tickInterval = kept(float, "tickInterval", 0.0)

    def __init__(self, parent=None):
        QtWidgets.QWidget.__init__(self, parent)
        self._minimum, self._maximum, self._value = 0.0, 100.0, 0.0
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self._spin_box = QtWidgets.QDoubleSpinBox()
        self._spin_box.setKeyboardTracking(False)
        self._spin_box.setRange(self._minimum, self._maximum)
        self._slider.setRange(0, 10000)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._spin_box)
        QtWidgets.QWidget.setFocusProxy(self, self._spin_box)
        self._slider.sliderMoved.connect(self._from_slider)
        self._slider.sliderReleased.connect(lambda: self.setValue(self._spin_box.value()))
        self._spin_box.valueChanged.connect(self.setValue)

    def _from_slider(self, position: int) -> None:
        step = self._spin_box.singleStep()
        value = self._minimum + (self._maximum - self._minimum) * position / 10000
        if step > 0:
            value = self._minimum + round((value - self._minimum) / step) * step
        self.valueIsChanging(value)
        if getattr(self, "_tracking", True):
            self.setValue(value)
        else:
            self._spin_box.blockSignals(True)
            self._spin_box.setValue(value)
            self._spin_box.blockSignals(False)

    def setValue(self, value: float) -> None:
        value = min(max(round(float(value), self._spin_box.decimals()), self._minimum), self._maximum)
        span = self._maximum - self._minimum
        for part, number in (
            (self._spin_box, value),
            (self._slider, round(10000 * (value - self._minimum) / span) if span > 0 else 0),
        ):
            part.blockSignals(True)
            part.setValue(number)
            part.blockSignals(False)
        if value != self._value:
            self._value = value
            self.valueChanged(value)

    def setRange(self, minimum: float, maximum: float) -> None:
        self._minimum, self._maximum = float(minimum), max(float(minimum), float(maximum))
        self._spin_box.blockSignals(True)
        self._spin_box.setRange(self._minimum, self._maximum)
        self._spin_box.blockSignals(False)
        self.setValue(self._value)

    def setMinimum(self, minimum: float) -> None:
        self.setRange(minimum, max(minimum, self._maximum))

    def setMaximum(self, maximum: float) -> None:
        self.setRange(min(self._minimum, maximum), maximum)

    def setDecimals(self, decimals: int) -> None:
        self._spin_box.setDecimals(decimals)
        self.decimalsChanged(decimals)

    def setSingleStep(self, step: float) -> None:
        self._spin_box.setSingleStep(step)

    def setSuffix(self, suffix: str) -> None:
        self._spin_box.setSuffix(suffix)

    def setPrefix(self, prefix: str) -> None:
        self._spin_box.setPrefix(prefix)

    def setPageStep(self, step: float) -> None:
        self._page_step = step

    def setSpinBoxVisible(self, visible: bool) -> None:
        self._spin_box.setVisible(visible)

    def reset(self) -> None:
        self.setValue(self._minimum if not self._minimum <= 0 <= self._maximum else 0.0)

    value = QtCore.Property(float, lambda self: self._value, setValue)
    minimum = QtCore.Property(float, lambda self: self._minimum, setMinimum)
    maximum = QtCore.Property(float, lambda self: self._maximum, setMaximum)
    decimals = QtCore.Property(int, lambda self: self._spin_box.decimals(), setDecimals)
    singleStep = QtCore.Property(float, lambda self: self._spin_box.singleStep(), setSingleStep)
    pageStep = QtCore.Property(float, lambda self: getattr(self, "_page_step", 10.0), setPageStep)
    suffix = QtCore.Property(str, lambda self: self._spin_box.suffix(), setSuffix)
    prefix = QtCore.Property(str, lambda self: self._spin_box.prefix(), setPrefix)
    spinBoxVisible = QtCore.Property(bool, lambda self: not self._spin_box.isHidden(), setSpinBoxVisible)


class ctkDoubleSpinBox(QtObject, QtWidgets.QDoubleSpinBox):
    """A spin box of floats."""

    _offered = True


class ctkComboBox(QtObject, QtWidgets.QComboBox):
    """A combo box with a text for when nothing is chosen."""

    _offered = True

    def setDefaultText(self, text: str) -> None:
        self._default_text = text
        QtWidgets.QComboBox.setPlaceholderText(self, text)

    defaultText = QtCore.Property(str, lambda self: getattr(self, "_default_text", ""), setDefaultText)
    forceDefault = kept(bool, "forceDefault", False)


class ctkPathLineEdit(QtObject, QtWidgets.QWidget):
    """An editable path with a browse button; `currentPath` is the text, whether or not such a file exists."""

    _offered = True
    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)
    label = kept(str, "label", "")
    settingKey = kept(str, "settingKey", "")
    showHistoryButton = kept(bool, "showHistoryButton", True)
    minimumContentsLength = kept(int, "minimumContentsLength", 0)
    # Bits of QDir::Filter, without NoDotAndDotDot, which CTK has not got.
    Dirs, Files, Readable, Writable, Executable = 1, 2, 16, 32, 64

    def __init__(self, parent=None):
        QtWidgets.QWidget.__init__(self, parent)
        self._filters = self.Dirs | self.Files | self.Readable | self.Executable
        self._name_filters = []
        self._combo_box = QtWidgets.QComboBox()
        self._combo_box.setEditable(True)
        self._combo_box.setInsertPolicy(QtWidgets.QComboBox.InsertPolicy.NoInsert)
        self._browse_button = QtWidgets.QToolButton()
        self._browse_button.setText("...")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._combo_box, 1)
        layout.addWidget(self._browse_button)
        QtWidgets.QWidget.setFocusProxy(self, self._combo_box.lineEdit())
        self._combo_box.lineEdit().textChanged.connect(lambda text: self.currentPathChanged(text))
        self._browse_button.clicked.connect(self.browse)

    def setCurrentPath(self, path: str) -> None:
        self._combo_box.lineEdit().setText(path)

    def setShowBrowseButton(self, shown: bool) -> None:
        self._browse_button.setVisible(shown)

    def browse(self) -> None:
        kind = "getOpenFileName" if self._filters & self.Files else "getExistingDirectory"
        path = dialogs.show(Dialog(kind, getattr(self, "_label", "")))
        if path:
            self.setCurrentPath(path)

    def setNameFilters(self, filters) -> None:
        self._name_filters = list(filters)

    def setFilters(self, filters) -> None:
        self._filters = int(filters)

    currentPath = QtCore.Property(str, lambda self: self._combo_box.lineEdit().text(), setCurrentPath, user=True)
    showBrowseButton = QtCore.Property(bool, lambda self: not self._browse_button.isHidden(), setShowBrowseButton)
    nameFilters = QtCore.Property("QStringList", lambda self: self._name_filters, setNameFilters)
    filters = QtCore.Property(int, lambda self: self._filters, setFilters)


for _widget in (
    ctkCollapsibleButton,
    ctkCollapsibleGroupBox,
    ctkSliderWidget,
    ctkDoubleSpinBox,
    ctkComboBox,
    ctkPathLineEdit,
):
    setattr(ctk, _widget.__name__, _widget)
