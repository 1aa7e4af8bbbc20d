"""The scene with what Slicer sets up around it: application logic, module logics, displayable managers, views."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import slicer
import slicer.util
import vtk

SLICE_VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}  # as in Slicer's default layouts
_SLICE_COLORS = {"Red": (0.953, 0.290, 0.200), "Yellow": (0.929, 0.835, 0.298), "Green": (0.431, 0.690, 0.294)}
_LOGICS = {
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Data": "vtkSlicerDataModuleLogic",
}


@dataclass
class Scene:
    """One scene and its logics. The collections hold what Slicer's layout manager would put into them."""

    mrml: object
    application_logic: object
    module_logics: dict[str, object] = field(default_factory=dict)
    slice_logics: dict[str, object] = field(default_factory=dict)
    view_logic: object = None


def make_scene(cache: Path) -> Scene:
    """A new scene, ready for volumes, transforms, segmentations and tables, with three slice views and one 3D view.

    `cache` is a folder for what is unpacked from scene bundles.
    """
    mrml = slicer.vtkMRMLScene()
    remote = slicer.vtkMRMLRemoteIOLogic()  # reading .mrb files wants a cache directory
    remote.GetCacheManager().SetRemoteCacheDirectory(str(cache))
    remote.SetMRMLScene(mrml)
    remote.AddDataIOToScene()
    application_logic = slicer.vtkSlicerApplicationLogic()
    application_logic.SetMRMLScene(mrml)
    application_logic.SetSliceLogics(vtk.vtkCollection())
    application_logic.SetViewLogics(vtk.vtkCollection())
    made = Scene(mrml, application_logic)
    made.module_logics["RemoteIO"] = remote

    colors = slicer.vtkSlicerColorLogic()  # the one with color legends
    application_logic.SetColorLogic(colors)
    warnings = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.SetGlobalWarningDisplay(0)  # the wheel has no files of colors
    colors.SetMRMLScene(mrml)
    colors.AddDefaultColorNodes()
    vtk.vtkObject.SetGlobalWarningDisplay(warnings)
    application_logic.SetModuleLogic("Colors", colors)
    made.module_logics["Colors"] = colors
    for factory in (
        slicer.vtkMRMLSliceViewDisplayableManagerFactory,
        slicer.vtkMRMLThreeDViewDisplayableManagerFactory,
    ):
        factory.GetInstance().SetMRMLApplicationLogic(application_logic)
    # The wheel lacks the terminology files, and their absence is reported at length.
    warnings = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.SetGlobalWarningDisplay(0)
    for name, class_name in _LOGICS.items():
        logic = _class(class_name)()
        logic.SetMRMLApplicationLogic(application_logic)
        logic.SetMRMLScene(mrml)
        application_logic.SetModuleLogic(name, logic)
        made.module_logics[name] = logic
    vtk.vtkObject.SetGlobalWarningDisplay(warnings)

    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(mrml, True)
    add_views(made)
    return made


def restore(scene: Scene) -> None:
    """Close the scene and take away the parameter nodes that survive that; views as they were at first."""
    scene.mrml.Clear(False)
    for node in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode", scene.mrml):
        scene.mrml.RemoveNode(node)
    for name, logic in scene.slice_logics.items():
        node, composite = logic.GetSliceNode(), logic.GetSliceCompositeNode()
        node.SetOrientation(SLICE_VIEWS[name])
        node.SetSliceOrigin(0, 0, 0)
        logic.SetSliceOffset(0)
        logic.ResizeSliceNode(400, 400)
        for layer in ("Background", "Foreground", "Label"):
            getattr(composite, f"Set{layer}VolumeID")(None)
        composite.SetForegroundOpacity(0)
        composite.SetLabelOpacity(1)


def _class(name: str) -> type:
    """A logic's class: some have the name of the module that holds them."""
    found = getattr(slicer, name)
    return found if isinstance(found, type) else getattr(found, name)


def add_views(scene: Scene) -> None:
    """The views of Slicer's four-up layout, as singletons that survive the closing of the scene."""
    for name, orientation in SLICE_VIEWS.items():
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(scene.application_logic)
        logic.SetMRMLScene(scene.mrml)
        node = logic.AddSliceNode(name)
        node.SetOrientation(orientation)
        node.SetLayoutLabel(name[0])
        node.SetLayoutColor(*_SLICE_COLORS[name])
        node.SetMappedInLayout(1)
        scene.slice_logics[name] = logic
        scene.application_logic.GetSliceLogics().AddItem(logic)
    scene.view_logic = slicer.vtkMRMLViewLogic()
    scene.view_logic.SetMRMLApplicationLogic(scene.application_logic)
    scene.view_logic.SetMRMLScene(scene.mrml)
    scene.view_logic.SetName("1")  # by which it finds its node again when the scene was closed
    scene.view_logic.AddViewNode("1").SetMappedInLayout(1)
    scene.application_logic.GetViewLogics().AddItem(scene.view_logic)
