"""The Slicer module: select two scans of one bone, click Align. A thin face over `DNetRegistrationLib`.

Slicer finds the classes of a module by their names in this file; panel and logic live in the library.
"""

import slicer
from DNetRegistrationLib.core.errors import PackageError
from DNetRegistrationLib.slicer_module.logic import DNetRegistrationLogic
from DNetRegistrationLib.slicer_module.panel import DNetRegistrationWidget
from DNetRegistrationLib.slicer_module.sample_data import loadSampleData, registerSampleData
from DNetRegistrationLib.slicer_module.torch_setup import require_torch
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

__all__ = ["DNetRegistration", "DNetRegistrationLogic", "DNetRegistrationTest", "DNetRegistrationWidget"]


class DNetRegistration(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("D-net Registration")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        self.parent.dependencies = []
        self.parent.contributors = ["The DNetRegistration developers"]
        self.parent.helpText = _(
            "<p>Aligns two micro-CT scans of the same bone in any orientation, such as a mouse tibia without and "
            "with contrast agent, says plainly whether to trust the result, and measures cartilage.</p>"
            "<p>Select the fixed and the moving volume and click Align. Two scans to try it on are loaded by a button, "
            "or in the module Sample Data, under D-net registration.</p>"
            '<p>See the <a href="https://github.com/OWNER_TO_BE_SET/SlicerDNetRegistration/blob/main/docs/slicer.md">'
            "documentation</a>.</p>"
        )
        self.parent.acknowledgementText = _(
            "<p>The task and the network are those of J.-Q. Zheng, N. H. Lim, B. W. Papież: <i>D-net: Siamese Based "
            "Network for Arbitrarily Oriented Volume Alignment</i>, ShapeMI workshop at MICCAI, 2020; please cite it "
            "when you use this module. This is an independent implementation. The authors' page marks the method as "
            "patent pending (application WO2023/275555A1); the default network may fall under it.</p>"
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


class DNetRegistrationTest(ScriptedLoadableModuleTest):
    """Loads the sample data, aligns it, and compares with the truth; run from Reload and Test, or by ctest."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Runs all tests, those that need no PyTorch first. Where it is missing, nothing has failed."""
        self.setUp()
        self.test_sampleData()
        try:
            require_torch()
        except PackageError as error:
            self.delayDisplay(f"Passed, but the alignment was not tested: {error}")
            return
        self.setUp()
        self.test_alignment()
        self.delayDisplay("Test passed")

    def test_sampleData(self) -> None:
        """The true transform lays the bone of the second scan on that of the first, under automatic thresholds."""
        import numpy as np
        from DNetRegistrationLib.bone.threshold import find_bone_scale
        from DNetRegistrationLib.slicer_module.scene import place

        self.delayDisplay("Making the sample data")
        fixed, moving, truth = loadSampleData()
        moving.SetAndObserveTransformNodeID(truth.GetID())
        scans = [place(node, role).volume() for node, role in ((fixed, "fixed"), (moving, "moving"))]
        bone = [scan.voxels > find_bone_scale(scan).threshold for scan in scans]
        indices = np.argwhere(bone[0])[:, ::-1]
        to_moving = np.linalg.solve(scans[1].affine, scans[0].affine)
        there = np.rint(indices @ to_moving[:3, :3].T + to_moving[:3, 3]).astype(int)
        inside = ((there >= 0) & (there < scans[1].size)).all(axis=1)
        x, y, z = there[inside].T
        self.assertGreater(bone[1][z, y, x].mean(), 0.8)

    def test_alignment(self) -> None:
        """The moving volume comes to lie where the true transform puts it, to half a voxel, and Undo takes it back."""
        import numpy as np

        fixed, moving, truth = loadSampleData()
        before = slicer.util.arrayFromVolume(moving).copy()
        self.delayDisplay("Aligning")
        logic = DNetRegistrationLogic()
        transform, alignment = logic.align(fixed, moving)
        self.assertTrue(alignment.accepted, alignment.verdict)
        found, true = (slicer.util.arrayFromTransformMatrix(node) for node in (transform, truth))
        # Corners of a cube of 2.5 mm about the middle of the scans, which is the world's origin.
        corners = np.stack(np.meshgrid(*[(-1.25, 1.25)] * 3), -1).reshape(-1, 3)
        error = np.linalg.norm(corners @ (found - true)[:3, :3].T + (found - true)[:3, 3], axis=1).max()
        self.assertLess(error, 0.02)
        self.assertIs(moving.GetParentTransformNode(), transform)
        self.assertTrue(logic.undo(moving))
        self.assertIsNone(moving.GetParentTransformNode())
        self.assertTrue(np.array_equal(slicer.util.arrayFromVolume(moving), before))
