"""What PythonQt makes of Qt's classes, over PySide6: the module `qt` and the base of `ctk` and `slicer.qMRML*` widgets.

PythonQt offers Qt properties as attributes (`button.text`, `button.enabled = True`), `name` for the object name,
dynamic properties and named children as attributes, and `connect` with a signature string. Everything else is a
method, as in PySide6. What PythonQt refuses is refused here: an attribute that is not a property cannot be set, a
property cannot be called, a signal that does not exist cannot be connected, keyword arguments cannot be given. So are
names that only PySide6 has: `Signal`, `Slot`, `Property`, and the members of an enumeration under its own name, which
are found in the module's source. Not refused: classes, methods and members that came with Qt 6, where Slicer may have
Qt 5.15.
"""

from __future__ import annotations

import ast
import enum
import re
import sys
import traceback
import types
from pathlib import Path

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

PYSIDE_MODULES = (QtCore, QtGui, QtWidgets, QtUiTools)
# Names of PySide6 that are no classes of Qt, or that Slicer's `qt` has not got.
PYSIDE_ONLY = {
    "Signal",
    "Slot",
    "Property",
    "ClassInfo",
    "QEnum",
    "QFlag",
    "SignalInstance",
    "MetaFunction",
    "QObject_",
}

errors: list[BaseException] = []
"""Exceptions of slots and observers, which PythonQt and VTK print and do not pass on; the host prints them as well."""


def record_error(kind, error, trace) -> None:
    """An exception hook that keeps what it prints; slots, timers and VTK observers all end here."""
    errors.append(error if error is not None else kind())
    traceback.print_exception(kind, error, trace)


def positional_arguments(function) -> int | None:
    """How many arguments of a signal PythonQt hands to a callable: all it names, or None for no limit."""
    bound = isinstance(function, types.MethodType)
    plain = function.__func__ if bound else function
    if not isinstance(plain, types.FunctionType) or plain.__code__.co_flags & 0x04:  # 0x04: takes *args
        return None
    return plain.__code__.co_argcount - int(bound)


def slot(function):
    """The callable that Qt gets: it passes as many arguments as PythonQt would, and keeps the exceptions."""
    count = positional_arguments(function)

    def call(*arguments):
        try:
            function(*(arguments if count is None else arguments[:count]))
        except Exception:
            record_error(*sys.exc_info())

    return call


class Signal:
    """A signal as an attribute of an object: connect, disconnect, and emission by calling it."""

    def __init__(self, owner, name: str, bound):
        self._owner, self._name, self._bound = owner, name, bound

    def connect(self, function) -> bool:
        wrapped = slot(function)
        _connections(self._owner).append((self._name, function, lambda: self._bound.disconnect(wrapped)))
        self._bound.connect(wrapped)
        return True

    def disconnect(self, function=None) -> bool:
        return _disconnect(self._owner, self._name, function)

    def emit(self, *arguments) -> None:
        self._bound.emit(*arguments)

    __call__ = emit


def _connections(owner) -> list:
    return object.__getattribute__(owner, "__dict__").setdefault("_pythonqt_connections", [])


def _disconnect(owner, key: str, function=None) -> bool:
    connections = _connections(owner)
    found = [entry for entry in connections if entry[0] == key and (function is None or entry[1] == function)]
    for entry in found if function is None else found[:1]:
        entry[2]()
        connections.remove(entry)
    return bool(found)


def property_names(qobject) -> frozenset[str]:
    """The Qt properties of an object's class, in the C++ spelling."""
    meta = QtCore.QObject.metaObject(qobject)
    key = (type(qobject), meta.className())
    if key not in _PROPERTY_NAMES:
        _PROPERTY_NAMES[key] = frozenset(meta.property(i).name() for i in range(meta.propertyCount()))
    return _PROPERTY_NAMES[key]


_PROPERTY_NAMES: dict[tuple, frozenset[str]] = {}


def has_dynamic_property(qobject, name: str) -> bool:
    """Whether the object was given a property that its class does not have, such as SlicerParameterName."""
    return name in (bytes(known.data()).decode() for known in QtCore.QObject.dynamicPropertyNames(qobject))


def read_attribute(qobject, name: str, otherwise):
    """The attribute of a Qt object as PythonQt looks it up: property, method or signal, dynamic property, child."""
    if name == "name" and "name" not in property_names(qobject):
        name = "objectName"
    if name in property_names(qobject):
        return QtCore.QObject.property(qobject, name)
    try:
        value = otherwise(name)
    except AttributeError:
        pass
    else:
        if isinstance(value, QtCore.SignalInstance):
            return Signal(qobject, name, value)
        if isinstance(value, types.BuiltinMethodType):
            return _adopting(value)
        return value
    if has_dynamic_property(qobject, name):
        return QtCore.QObject.property(qobject, name)
    for child in QtCore.QObject.children(qobject):
        if QtCore.QObject.objectName(child) == name:
            return adopt(child)
    raise AttributeError(f"{QtCore.QObject.metaObject(qobject).className()} has no attribute named '{name}'")


def write_attribute(qobject, name: str, value) -> None:
    """Set a Qt property or a dynamic property that exists; anything else is an AttributeError, as in PythonQt."""
    if name == "name" and "name" not in property_names(qobject):
        name = "objectName"
    class_name = QtCore.QObject.metaObject(qobject).className()
    if name in property_names(qobject):
        if value is None:
            raise AttributeError(f"Property '{name}' of {class_name} does not accept None")
        meta = QtCore.QObject.metaObject(qobject)
        found = meta.property(meta.indexOfProperty(name))
        if not found.isWritable():
            raise AttributeError(f"Property '{name}' of {class_name} object is not writable")
        plain = value.value if isinstance(value, enum.Enum) else list(value) if isinstance(value, tuple) else value
        if not found.write(qobject, plain):
            kind = f"{found.typeName()}' does not accept an object of type {type(value).__name__}"
            raise AttributeError(f"Property '{name}' of type '{kind}")
    elif has_dynamic_property(qobject, name):
        QtCore.QObject.setProperty(qobject, name, value)
    else:
        raise AttributeError(
            f"Attribute '{name}' does not exist on {class_name} and creation of new attributes is not allowed"
        )


def adopt(value):
    """A Qt object made inside Qt, given the same attributes; everything else as it is."""
    if isinstance(value, QtCore.QObject) and not isinstance(value, QtObject):
        return Foreign(value)
    if isinstance(value, list):
        return [adopt(item) for item in value]
    return value


def _adopting(method):
    def call(*arguments, **keywords):
        _refuse_keywords(method.__name__, keywords)
        arguments = [argument._qobject if isinstance(argument, Foreign) else argument for argument in arguments]
        return adopt(method(*arguments))

    return call


def _refuse_keywords(name: str, keywords: dict) -> None:
    if keywords:
        raise TypeError(f"Called {name} with keyword arguments, but called slot does not support kwargs.")


class _ObjectMethods:
    """What PythonQt adds to every QObject."""

    def connect(self, signature: str, *target) -> bool:
        """Connect `"clicked(bool)"` to a callable, or to an object and the signature of its slot."""
        qobject = getattr(self, "_qobject", self)
        if not isinstance(signature, str):  # PySide6's own signals call here with the sender first
            return QtCore.QObject.connect(signature, *target)
        signature = _normalized(signature)
        function = target[0] if len(target) == 1 else getattr(target[0], target[1].partition("(")[0])
        declared = getattr(type(self), "signatures", {})
        if signature in declared:
            bound = QtCore.QObject.__getattribute__(qobject, declared[signature])
            wrapped = slot(function)
            bound.connect(wrapped)
            _connections(qobject).append((signature, function, lambda: bound.disconnect(wrapped)))
            return True
        if QtCore.QObject.metaObject(qobject).indexOfSignal(signature) < 0 or "PyObject" in signature:
            class_name = QtCore.QObject.metaObject(qobject).className()
            raise ValueError(f"QObject::connect() signal '{signature}' does not exist on {class_name}")
        wrapped = slot(function)
        QtCore.QObject.connect(qobject, QtCore.SIGNAL(signature), wrapped)
        undo = lambda: QtCore.QObject.disconnect(qobject, QtCore.SIGNAL(signature), wrapped)  # noqa: E731
        _connections(qobject).append((signature, function, undo))
        return True

    def disconnect(self, signature: str, *function) -> bool:
        """Undo `connect`; true if there was such a connection."""
        if not isinstance(signature, str):
            return QtCore.QObject.disconnect(signature, *function)
        return _disconnect(getattr(self, "_qobject", self), _normalized(signature), *function)

    def findChildren(self, kind="QObject", name=""):
        """All descendants of a class, given as a class or by its name, and with an object name if one is given."""
        qobject = getattr(self, "_qobject", self)
        class_name = kind if isinstance(kind, str) else kind.__name__
        return [
            adopt(child)
            for child in QtCore.QObject.findChildren(qobject, QtCore.QObject, name)
            if QtCore.QObject.inherits(child, class_name)
        ]

    def findChild(self, kind="QObject", name=""):
        """The first of `findChildren`, or None."""
        return next(iter(self.findChildren(kind, name)), None)

    def property(self, name: str):
        """The value of a Qt property or a dynamic property, or None (PySide6 says 0) if there is none."""
        qobject = getattr(self, "_qobject", self)
        known = name in property_names(qobject) or has_dynamic_property(qobject, name)
        return QtCore.QObject.property(qobject, name) if known else None

    def className(self) -> str:
        """The name of the C++ class."""
        return QtCore.QObject.metaObject(getattr(self, "_qobject", self)).className()


def _normalized(signature: str) -> str:
    """As QMetaObject::normalizedSignature: "changed( const QString & )" is "changed(QString)"."""
    name, _, arguments = signature.strip().partition("(")
    plain = re.sub(r"\bconst\b|&", "", arguments.rstrip().removesuffix(")"))
    return f"{name.strip()}({','.join(part.replace(' ', '') for part in plain.split(','))})"


_READING: set[tuple[int, str]] = set()  # the attributes that are being read


class QtObject(_ObjectMethods):
    """The mixin that gives a PySide6 class the attributes of its PythonQt wrapper.

    `signatures` maps C++ signatures with types unknown to Qt, such as "currentNodeChanged(vtkMRMLNode*)", to the names
    of the signals of the host's class.
    """

    signatures: dict[str, str] = {}  # noqa: RUF012

    def __getattribute__(self, name: str):
        if name.startswith("_") or name == "signatures":
            return super().__getattribute__(name)
        if name in _ADDED:  # asked of the class, since PySide6 answers for its own `connect` first
            return types.MethodType(getattr(_ObjectMethods, name), self)
        # A property whose getter is virtual, such as the size hint, asks for an override of its own name: it has none.
        reading = id(self), name
        if reading in _READING:
            return super().__getattribute__(name)
        _READING.add(reading)
        try:
            return read_attribute(self, name, super().__getattribute__)
        finally:
            _READING.discard(reading)

    def __setattr__(self, name: str, value) -> None:
        # Classes of the host say `_offered`; a module's own subclass of them may have attributes of its own.
        if name.startswith("_") or ("_offered" not in vars(type(self)) and name not in property_names(self)):
            super().__setattr__(name, value)
        else:
            write_attribute(self, name, value)


_ADDED = {name for name in vars(_ObjectMethods) if not name.startswith("_")}


class Foreign(_ObjectMethods):
    """A Qt object that Qt made itself (a header view, a button of a message box), with PythonQt's attributes."""

    def __init__(self, qobject):
        object.__setattr__(self, "_qobject", qobject)

    def __getattribute__(self, name: str):
        if name.startswith("_") or name in _ADDED:
            return object.__getattribute__(self, name)
        qobject = object.__getattribute__(self, "_qobject")
        return read_attribute(qobject, name, lambda key: getattr(qobject, key))

    def __setattr__(self, name: str, value) -> None:
        write_attribute(self._qobject, name, value)

    def __eq__(self, other) -> bool:
        return self._qobject == getattr(other, "_qobject", other)

    def __hash__(self) -> int:
        return hash(self._qobject)


class _HostMeta(type(QtCore.QObject)):
    """Makes `isinstance(button, qt.QWidget)` hold: the host's classes are siblings, not subclasses of each other.

    And constructors take no keywords, as in PythonQt.
    """

    def __call__(cls, *arguments, **keywords):
        if "_pyside" in cls.__dict__:
            _refuse_keywords(cls.__name__, keywords)
        return super().__call__(*arguments, **keywords)

    def __instancecheck__(cls, instance) -> bool:
        instance = getattr(instance, "_qobject", instance)
        return (
            isinstance(instance, cls.__dict__["_pyside"])
            if "_pyside" in cls.__dict__
            else super().__instancecheck__(instance)
        )


def wrapped_class(pyside_class: type, **extra) -> type:
    """The host's class of the same name as a QObject class of PySide6."""
    space = {"_offered": True, "_pyside": pyside_class, "__module__": "qt", **extra}
    if hasattr(pyside_class, "exec") and "exec_" not in space:
        space["exec_"] = lambda self, *arguments: self.exec(*arguments)  # PythonQt has it under both names
    return _HostMeta(pyside_class.__name__, (QtObject, pyside_class), space)


class QtModule(types.ModuleType):
    """`import qt`: the classes of QtCore, QtGui, QtWidgets and QtUiTools, made when first asked for."""

    def __getattr__(self, name: str):
        if name not in PYSIDE_ONLY and not name.startswith("_"):
            for module in PYSIDE_MODULES:
                found = getattr(module, name, None)
                if isinstance(found, type):
                    value = wrapped_class(found) if issubclass(found, QtCore.QObject) else found
                    setattr(self, name, value)
                    return value
        raise AttributeError(f"module 'qt' has no attribute '{name}'")


qt = QtModule("qt", "The host's stand-in for PythonQt's qt.")
qt.QTimer = wrapped_class(
    QtCore.QTimer,
    singleShot=staticmethod(lambda msec, function: QtCore.QTimer.singleShot(msec, slot(function))),
)


def pyside_only_spellings(source: Path) -> list[str]:
    """Names in a module's source that PySide6 understands and PythonQt does not, as 'file:line: name'.

    Two kinds: members of an enumeration through the enumeration (`qt.QMessageBox.StandardButton.Ok` instead of
    `qt.QMessageBox.Ok`), and classes that only PySide6 has (`qt.Signal`).
    """
    found = []
    for node in ast.walk(ast.parse(Path(source).read_text(encoding="utf-8"))):
        names = _dotted(node)
        if not names or names[0] != "qt":
            continue
        if len(names) == 2 and names[1] in PYSIDE_ONLY:
            found.append(f"{source}:{node.lineno}: {'.'.join(names)}")
        if len(names) == 4:
            owner = next((getattr(module, names[1]) for module in PYSIDE_MODULES if hasattr(module, names[1])), None)
            kind = getattr(owner, names[2], None)
            if isinstance(kind, type) and issubclass(kind, enum.Enum):
                found.append(f"{source}:{node.lineno}: {'.'.join(names)}")
    return found


def _dotted(node) -> list[str]:
    if isinstance(node, ast.Attribute):
        front = _dotted(node.value)
        return [*front, node.attr] if front else []
    return [node.id] if isinstance(node, ast.Name) else []
