"""The Slicer module: select two scans of one bone, click Align. A thin face over `DNetRegistrationLib`.

Slicer finds the classes of a module by their names in this file; panel and logic live in the library.
"""

import slicer
from DNetRegistrationLib.core.errors import PackageError
from DNetRegistrationLib.slicer_module.logic import DNetRegistrationLogic
from DNetRegistrationLib.slicer_module.panel import DNetRegistrationWidget
from DNetRegistrationLib.slicer_module.sample_data import loadSampleData, registerSampleData
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
            "<p>Aligns two micro-CT scans of the same bone, turned any way round, such as a mouse tibia without and "
            "with contrast agent, and says plainly whether to trust the result.</p>"
            "<p>Select the fixed and the moving volume and click Align. Two scans to try it on are in the module "
            "Sample Data, under D-net registration.</p>"
        )
        self.parent.acknowledgementText = _(
            "<p>The task and the network are those of J.-Q. Zheng, N. H. Lim, B. W. Papież: <i>D-net: Siamese Based "
            "Network for Arbitrarily Oriented Volume Alignment</i>, ShapeMI workshop at MICCAI, 2020; please cite it "
            "when you use this module. This is an independent implementation. The authors' page marks the method as "
            "patent pending.</p>"
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


class DNetRegistrationTest(ScriptedLoadableModuleTest):
    """Aligns the sample data and compares with the truth; run from Reload and Test, or by ctest."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Runs all tests."""
        self.setUp()
        self.test_sampleData()

    def test_sampleData(self) -> None:
        """The moving volume comes to lie where the true transform puts it, to half a voxel, and Undo takes it back."""
        import numpy as np

        self.delayDisplay("Making the sample data")
        fixed, moving, truth = loadSampleData()
        before = slicer.util.arrayFromVolume(moving).copy()
        self.delayDisplay("Aligning")
        logic = DNetRegistrationLogic()
        try:
            transform, alignment = logic.align(fixed, moving)
        except PackageError as error:
            self.skipTest(str(error))
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
        self.delayDisplay("Test passed")
