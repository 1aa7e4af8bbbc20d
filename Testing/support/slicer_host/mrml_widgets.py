"""The `slicer.qMRML*` widgets that a module's panel uses: the panel itself and the node selector."""

from __future__ import annotations

import weakref

import shiboken6
import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from .ctk_widgets import ctkComboBox, ctkSliderWidget, kept
from .dialogs import Dialog, dialogs
from .pythonqt import QtObject


class qMRMLWidget(QtObject, QtWidgets.QWidget):
    """A widget that knows the scene, the top of a module's `.ui`."""

    _offered = True
    mrmlSceneChanged = QtCore.Signal(object)
    signatures = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}  # noqa: RUF012

    def __init__(self, parent=None):
        QtWidgets.QWidget.__init__(self, parent)
        self._scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged(scene)


class qMRMLSliderWidget(ctkSliderWidget):
    """A slider that takes its unit from the scene in Slicer; here a plain slider."""

    _offered = True
    quantity = kept(str, "quantity", "")
    unitAwareProperties = kept(int, "unitAwareProperties", 0)

    def setMRMLScene(self, scene) -> None:
        self._scene = scene


def _observe(subject, event, method) -> int:
    """A VTK observer that neither keeps the widget nor calls it after Qt has deleted it: then it goes."""
    reference = weakref.WeakMethod(method)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def call(caller, event, node=None):
        alive = reference()
        if alive is not None and shiboken6.isValid(alive.__self__):
            alive(caller, event, node)
        else:
            caller.RemoveObserver(tag)

    tag = subject.AddObserver(event, call)
    return tag


def _action_property(name: str, default: bool):
    """Whether the list ends with a certain action."""
    attribute = f"_{name}"

    def change(self, enabled: bool) -> None:
        setattr(self, attribute, enabled)
        self._update()

    return QtCore.Property(bool, lambda self: getattr(self, attribute, default), change)


class qMRMLNodeComboBox(QtObject, QtWidgets.QWidget):
    """A selector of nodes of the scene that follows nodes added, removed and renamed.

    As in Slicer: without `noneEnabled` the first node that appears in an empty list is chosen, and another one when the
    current node is about to be removed; a new node ("Create new ...") is chosen when `selectNodeUponCreation` is set; a
    node chosen before the scene is set is remembered; the renaming of the current node is told as a change of it; and
    nodes are listed at the end of an import and of a close. The list is flat, in the order of the scene.
    """

    _offered = True
    currentNodeChanged = QtCore.Signal(object)
    _validityChanged = QtCore.Signal(bool)
    currentNodeIDChanged = QtCore.Signal(str)
    nodeAdded = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)
    nodeActivated = QtCore.Signal(object)
    currentNodeRenamed = QtCore.Signal(str)
    signatures = {  # noqa: RUF012
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "_validityChanged",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
    }

    addEnabled = _action_property("addEnabled", True)
    removeEnabled = _action_property("removeEnabled", True)
    editEnabled = _action_property("editEnabled", False)
    renameEnabled = _action_property("renameEnabled", False)
    selectNodeUponCreation = kept(bool, "selectNodeUponCreation", True)
    interactionNodeSingletonTag = kept(str, "interactionNodeSingletonTag", "")

    def __init__(self, parent=None):
        QtWidgets.QWidget.__init__(self, parent)
        self._scene, self._scene_tags, self._node_tags = None, [], {}
        self._node_types = []
        self._base_names: dict[str, str] = {}
        self._requested_id = ""
        self._none_enabled, self._none_display = False, "None"
        self._show_hidden, self._show_child_types, self._hidden_child_types = False, True, []
        self._current_id = ""
        self._ids: list[str] = []
        self._combo_box = ctkComboBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo_box)
        QtWidgets.QComboBox.activated.__get__(self._combo_box).connect(self._activate)
        QtWidgets.QWidget.setFocusProxy(self, self._combo_box)
        policy = QtWidgets.QSizePolicy.Policy
        QtWidgets.QWidget.setSizePolicy(self, policy.Preferred, policy.Fixed)
        QtWidgets.QComboBox.setSizePolicy(self._combo_box, policy.Expanding, policy.Expanding)
        QtWidgets.QComboBox.setMinimumContentsLength(self._combo_box, 8)
        adjust = QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        QtWidgets.QComboBox.setSizeAdjustPolicy(self._combo_box, adjust)
        QtWidgets.QWidget.setEnabled(self, False)

    # The scene

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        if scene is self._scene:
            return
        for tag in self._scene_tags:
            self._scene.RemoveObserver(tag)
        self._forget_nodes()
        self._scene = scene
        events = {
            slicer.vtkMRMLScene.NodeAddedEvent: self._node_added,
            slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent: self._node_leaves,
            slicer.vtkMRMLScene.EndImportEvent: self._update,
            slicer.vtkMRMLScene.EndCloseEvent: self._update,
        }
        self._scene_tags = []
        if scene is not None:
            self._scene_tags = [_observe(scene, event, call) for event, call in events.items()]
        wanted, self._requested_id = self._requested_id or self._current_id, ""
        self._current_id = ""
        QtWidgets.QWidget.setEnabled(self, scene is not None)
        self._update()
        if wanted:
            self._choose(wanted)

    def _forget_nodes(self) -> None:
        for node, tag in self._node_tags.values():
            node.RemoveObserver(tag)
        self._node_tags = {}

    def _matches(self, node) -> bool:
        if not self._show_hidden and node.GetHideFromEditors():
            return False
        for node_type in self._node_types:
            if node.GetClassName() == node_type:
                break
            if self._show_child_types and node.IsA(node_type):
                if any(node.IsA(hidden) for hidden in self._hidden_child_types):
                    continue
                break
        else:
            return False
        return True

    def _node_added(self, scene, event, node) -> None:
        if not scene.IsImporting() and self._matches(node):
            self._update()

    def _node_leaves(self, scene, event, node) -> None:
        if not scene.IsClosing():
            self._update(without=node)

    def _update(self, *_event, without=None) -> None:
        """Rebuild the list from the scene, keep the current node if it is still there."""
        was_empty, old_row = not self._ids, self._ids.index(self._current_id) if self._current_id in self._ids else -1
        count = self._scene.GetNumberOfNodes() if self._scene is not None else 0
        nodes = [self._scene.GetNthNode(i) for i in range(count)]
        nodes = [node for node in nodes if node is not without and self._matches(node)]
        self._forget_nodes()
        modified = vtk.vtkCommand.ModifiedEvent
        self._node_tags = {node.GetID(): (node, _observe(node, modified, self._node_modified)) for node in nodes}
        added = [node for node in nodes if node.GetID() not in self._ids]
        self._ids = [node.GetID() for node in nodes]
        self._fill(nodes)
        wanted = self._current_id
        if self._current_id and self._current_id not in self._ids:
            wanted = "" if self._none_enabled or not self._ids else self._ids[min(old_row, len(self._ids) - 1)]
        elif not self._current_id and was_empty and self._ids and not self._none_enabled:
            wanted = self._ids[0]
        self._choose(wanted)
        for node in added:
            self.nodeAdded(node)

    def _fill(self, nodes) -> None:
        box, base = self._combo_box, QtWidgets.QComboBox
        base.blockSignals(box, True)
        base.clear(box)
        if self._none_enabled:
            base.addItem(box, self._none_display, "")
        for node in nodes:
            base.addItem(box, node.GetName() or "", node.GetID())
        label = self.nodeTypeLabel(self._node_types[0]) if self._node_types else "node"
        box.setDefaultText(f"Select a {label}")
        actions = []
        if getattr(self, "_renameEnabled", False):
            actions.append((f"Rename current {label}", "RENAME"))
        if getattr(self, "_editEnabled", False):
            actions.append((f"Edit current {label}", "EDIT"))
        if getattr(self, "_addEnabled", True):
            actions += [(f"Create new {self.nodeTypeLabel(kind)}", f"CREATE/{kind}") for kind in self._node_types]
        if getattr(self, "_removeEnabled", True):
            actions.append((f"Delete current {label}", "DELETE"))
        if actions:
            base.insertSeparator(box, base.count(box))
        for text, action in actions:
            base.addItem(box, text, action)
        base.setCurrentIndex(box, base.findData(box, self._current_id))
        base.blockSignals(box, False)

    def _node_modified(self, node, *_event) -> None:
        if node.GetID() in self._ids and not self._matches(node):
            self._update()
            return
        row = QtWidgets.QComboBox.findData(self._combo_box, node.GetID())
        if row >= 0 and QtWidgets.QComboBox.itemText(self._combo_box, row) != node.GetName():
            QtWidgets.QComboBox.setItemText(self._combo_box, row, node.GetName())
            if node.GetID() == self._current_id:  # Slicer goes by the text of the row
                self._tell()

    def _choose(self, node_id: str) -> None:
        if node_id not in self._ids:
            node_id = ""
        changed, self._current_id = node_id != self._current_id, node_id
        box, base = self._combo_box, QtWidgets.QComboBox
        base.blockSignals(box, True)
        base.setCurrentIndex(box, base.findData(box, node_id) if node_id or self._none_enabled else -1)
        base.blockSignals(box, False)
        if changed:
            self._tell()

    def _tell(self) -> None:
        node = self.currentNode()
        self.currentNodeChanged(node)
        self._validityChanged.emit(node is not None)
        self.currentNodeIDChanged(self._current_id)

    def _activate(self, row: int) -> None:
        """The user picked a row: a node, None, or one of the actions below the separator."""
        data = QtWidgets.QComboBox.itemData(self._combo_box, row) or ""
        self._choose(self._current_id if data in ("RENAME", "EDIT", "DELETE") or data.startswith("CREATE/") else data)
        if data.startswith("CREATE/"):
            self.addNode(data.partition("/")[2])
        elif data == "DELETE":
            self.removeCurrentNode()
        elif data == "RENAME":
            self.renameCurrentNode()
        elif data != "EDIT":
            self.nodeActivated(self.currentNode())

    # Nodes

    def currentNode(self):
        return self._scene.GetNodeByID(self._current_id) if self._scene is not None and self._current_id else None

    def setCurrentNode(self, node) -> None:
        self.setCurrentNodeID(node.GetID() if node is not None else "")

    def setCurrentNodeID(self, node_id: str) -> None:
        if self._scene is None:
            self._requested_id = node_id or ""
        self._choose(node_id or "")

    def nodeCount(self) -> int:
        return len(self._ids)

    def addNode(self, node_type: str = ""):
        node_type = node_type or (self._node_types[0] if self._node_types else "")
        if node_type not in self._node_types:
            return None
        node = self._scene.CreateNodeByClass(node_type)
        node.UnRegister(None)
        base_name = self._base_names.get(node_type) or ("" if node.GetName() else node.GetDefaultNodeNamePrefix())
        if base_name:
            node.SetName(self._scene.GetUniqueNameByString(base_name))
        self._scene.AddNode(node)
        if getattr(self, "_selectNodeUponCreation", True):
            self.setCurrentNode(node)
        self.nodeAddedByUser(node)
        return node

    def removeCurrentNode(self) -> None:
        self._scene.RemoveNode(self.currentNode())

    def renameCurrentNode(self) -> None:
        node = self.currentNode()
        name = dialogs.show(Dialog("getText", "Rename")) if node is not None else None
        if name:
            node.SetName(name)
            self.currentNodeRenamed(name)

    # Settings

    def nodeTypeLabel(self, node_type: str) -> str:
        return (self._scene.GetTypeDisplayNameByClassName(node_type) if self._scene else "") or "node"

    def setNodeTypes(self, types) -> None:
        self._node_types = [node_type for node_type in types if node_type]
        self._update()

    def setBaseName(self, name: str, node_type: str = "") -> None:
        for kind in [node_type] if node_type else self._node_types:
            self._base_names[kind] = name

    def setNoneEnabled(self, enabled: bool) -> None:
        self._none_enabled = enabled
        self._update()

    def setNoneDisplay(self, text: str) -> None:
        self._none_display = text
        self._update()

    def setShowHidden(self, shown: bool) -> None:
        self._show_hidden = shown
        self._update()

    def setShowChildNodeTypes(self, shown: bool) -> None:
        self._show_child_types = shown
        self._update()

    def setHideChildNodeTypes(self, types) -> None:
        self._hidden_child_types = list(types)
        self._update()

    currentNodeID = QtCore.Property(str, lambda self: self._current_id, setCurrentNodeID, notify=currentNodeIDChanged)
    nodeTypes = QtCore.Property("QStringList", lambda self: self._node_types, setNodeTypes)
    hideChildNodeTypes = QtCore.Property("QStringList", lambda self: self._hidden_child_types, setHideChildNodeTypes)
    baseName = QtCore.Property(
        str, lambda self: self._base_names.get(self._node_types[0], "") if self._node_types else "", setBaseName
    )
    noneEnabled = QtCore.Property(bool, lambda self: self._none_enabled, setNoneEnabled)
    noneDisplay = QtCore.Property(str, lambda self: self._none_display, setNoneDisplay)
    showHidden = QtCore.Property(bool, lambda self: self._show_hidden, setShowHidden)
    showChildNodeTypes = QtCore.Property(bool, lambda self: self._show_child_types, setShowChildNodeTypes)
