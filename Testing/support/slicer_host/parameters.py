"""The parameters of a `slicer.parameterNodeWrapper`: their types, what a value must satisfy, how it is stored.

Values are stored under the names that Slicer uses, so that a scene saved here means the same there.
"""

from __future__ import annotations

import enum
import pathlib
import types
import typing
from dataclasses import dataclass

import slicer
import slicer.util

PATHS = (pathlib.Path, pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePath)


class Default:
    """The value of a parameter that was never set."""

    def __init__(self, value=None, *, generator=None):
        self._value, self._generator = value, generator

    @property
    def value(self):
        return self._generator() if self._generator else self._value


class Validator:
    """What a value must satisfy to be stored."""

    def validate(self, value) -> None:
        raise NotImplementedError


class WithinRange(Validator):
    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


class Choice(Validator):
    def __init__(self, choices):
        self.choices = choices

    def validate(self, value) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be one of: {self.choices}")


# How values are written into the node


class TextStore:
    """A value kept as a string parameter."""

    def __init__(self, kind, to_text=str, from_text=None, default=None):
        self.kind, self.to_text, self.from_text, self.default = kind, to_text, from_text or kind, default

    def accepts(self, value) -> bool:
        wanted = (int, float) if self.kind is float else self.kind
        return isinstance(value, wanted) and not (self.kind in (int, float) and isinstance(value, bool))

    def is_in(self, node, name) -> bool:
        return node.HasParameter(name)

    def write(self, node, name, value) -> None:
        node.SetParameter(name, self.to_text(value))

    def read(self, node, name):
        return self.from_text(node.GetParameter(name))

    def remove(self, node, name) -> None:
        node.UnsetParameter(name)


class NodeStore(TextStore):
    """A node, kept as a node reference; an empty parameter of the same name says that it was set."""

    def accepts(self, value) -> bool:
        return value is None or isinstance(value, self.kind)

    def write(self, node, name, value) -> None:
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node, name):
        return node.GetNodeReference(name)

    def remove(self, node, name) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class UnionStore:
    """One of several types, each under its own name `<name>.<index>`."""

    def __init__(self, members, kinds):
        self.members = members
        self.default = None if type(None) in kinds else members[0].default

    def accepts(self, value) -> bool:
        return any(member.accepts(value) for member in self.members)

    def is_in(self, node, name) -> bool:
        return any(member.is_in(node, f"{name}.{index}") for index, member in enumerate(self.members))

    def write(self, node, name, value) -> None:
        # None belongs to the member for None, not to a node that is not there.
        order = sorted(range(len(self.members)), key=lambda i: isinstance(self.members[i], NodeStore) and value is None)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            index = next(i for i in order if self.members[i].accepts(value))
            self.members[index].write(node, f"{name}.{index}", value)

    def read(self, node, name):
        for index, member in enumerate(self.members):
            if member.is_in(node, f"{name}.{index}"):
                return member.read(node, f"{name}.{index}")
        raise KeyError(f"Unable to find value for name: {name}")

    def remove(self, node, name) -> None:
        for index, member in enumerate(self.members):
            member.remove(node, f"{name}.{index}")


def _store(kind):
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kinds = typing.get_args(kind)
        return UnionStore([_store(member) for member in kinds], kinds)
    if kind is type(None):
        return TextStore(kind, to_text=lambda value: "None", from_text=lambda text: None)
    if kind is bool:
        return TextStore(bool, lambda value: "True" if value else "False", lambda text: text == "True", False)
    if kind in (int, float):
        return TextStore(kind, default=0)
    if kind is str:
        return TextStore(str, default="")
    if kind in PATHS:
        return TextStore(kind, default=kind())
    if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return NodeStore(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return TextStore(kind, lambda value: value.name, lambda text: kind[text], next(iter(kind)))
    raise TypeError(f"the host has no parameters of type {kind}")


def _split(annotated):
    if typing.get_origin(annotated) is typing.Annotated:
        kind, *annotations = typing.get_args(annotated)
        return kind, annotations
    return annotated, []


@dataclass
class Parameter:
    name: str
    kind: object
    annotations: list
    store: object
    default: Default

    def write(self, node, value) -> None:
        if value is None and not self.store.accepts(None):
            raise ValueError("Value must not be None")
        if not self.store.accepts(value):
            raise TypeError(f"Value must be of type '{self.kind}', is type '{type(value)}' value '{value}'")
        for annotation in self.annotations:
            if isinstance(annotation, Validator):
                annotation.validate(value)
        self.store.write(node, self.name, value)

    def read(self, node):
        if not self.store.is_in(node, self.name):
            self.write(node, self.default.value)
        return self.store.read(node, self.name)


def make_parameter(owner, name, hint) -> Parameter:
    kind, annotations = _split(hint)
    store = _store(kind)
    defaults = [annotation for annotation in annotations if isinstance(annotation, Default)]
    default = defaults[0] if defaults else Default(store.default)
    if hasattr(owner, name):
        default = Default(getattr(owner, name))
    return Parameter(name, kind, annotations, store, default)
