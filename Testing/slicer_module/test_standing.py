"""What the panel says of two volumes after anything was done to the scene, against points of the bone."""

from __future__ import annotations

import numpy as np
import pytest
from DNetRegistrationLib.cartilage.result import ThicknessMap
from DNetRegistrationLib.outputs.segmentation import Cortices
from DNetRegistrationLib.slicer_module.contents import Contents
from DNetRegistrationLib.slicer_module.measured_cartilage import MeasuredCartilage
from scene_nodes import FLIP, GRIDS, MODULE, add_transform, add_volume, aligned, positions, put_under, rigid, world_lps

GOOD = "#d7f0dd"


def middle(node) -> np.ndarray:
    """Of what an output node shows, in the world, LPS mm."""
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    if node.IsA("vtkMRMLVolumeNode"):
        return world_lps(node, (np.array(node.GetImageData().GetDimensions()) - 1) / 2)
    surface = node.GetPolyData() if node.IsA("vtkMRMLModelNode") else vtk.vtkPolyData()
    if not node.IsA("vtkMRMLModelNode"):
        node.GetClosedSurfaceRepresentation("FixedCorticalBone", surface)
    points = vtk_to_numpy(surface.GetPoints().GetData())
    world = [0.0, 0.0, 0.0]
    node.TransformPointToWorld(points.mean(0, float).tolist(), world)
    return (FLIP @ (*world, 1.0))[:3]


def contents_on(fixed) -> Contents:
    """One output of each kind that lies somewhere, off the middle of the fixed volume."""
    mask = np.zeros(fixed.volume().voxels.shape, bool)
    mask[1:5, 2:6, 3:7] = True
    corners = fixed.affine[:3, 3] + np.array([(0.1, 0.2, 0.3), (1.1, 0.2, 0.3), (0.1, 1.2, 0.3), (0.1, 0.2, 1.3)])
    ones = np.ones(4)
    surface = ThicknessMap(corners, corners, np.array([(0, 1, 2), (1, 2, 3)]), *7 * [ones])
    cartilage = MeasuredCartilage({"compartments": [], "warnings": []}, None, surface, 60.0)
    return Contents(Cortices(mask, mask, fixed.affine), mask.astype(np.int16), None, 0.0, cartilage)


class Record:
    """An alignment as the test remembers it: which voxels of the two volumes are of one place, and their values."""

    def __init__(self, transform, fixed, moving, before, matrix):
        """`before` holds where some places of the moving volume were when it was aligned, `matrix` what was found."""
        import slicer
        from DNetRegistrationLib.slicer_module.scene import outputs_of

        self.transform, self.ids = transform.GetID(), (fixed.GetID(), moving.GetID())
        self.voxels = [slicer.util.arrayFromVolume(node).copy() for node in (fixed, moving)]
        size = [node.GetImageData().GetDimensions() for node in (fixed, moving)]
        # Places spread over the fixed volume; the moving volume's indices are solved for from four of its points.
        self.fixed = [(0, 0, 0), (size[0][0] - 1, 0, 1), (0, size[0][1] - 1, 2), (3, 4, size[0][2] - 1), (4, 3, 2)]
        steps = np.array([before[i] - before[0] for i in (1, 2, 3)]).T
        self.moving = [
            np.linalg.solve(steps, (matrix @ (*world_lps(fixed, index), 1))[:3] - before[0]) for index in self.fixed
        ]
        self.lengths = self._lengths([world_lps(fixed, index) for index in self.fixed])
        self.outputs = {}  # where the middle of each lies in the fixed volume, as an index, by its ID
        origin = world_lps(fixed, (0, 0, 0))
        steps = np.array([world_lps(fixed, step) - origin for step in np.eye(3)]).T
        for node in outputs_of(transform).values():
            if node.IsA("vtkMRMLTransformableNode"):
                self.outputs[node.GetID()] = np.linalg.solve(steps, middle(node) - origin)

    @staticmethod
    def _lengths(points):
        return [float(np.linalg.norm(a - b)) for a in points for b in points]

    def behind(self) -> set[str]:
        """The names of the outputs that no longer lie on the fixed volume as they were written; where `holds`."""
        import slicer

        fixed, found = slicer.mrmlScene.GetNodeByID(self.ids[0]), set()
        voxels = slicer.util.arrayFromVolume(fixed)
        turned = not np.array_equal(voxels, self.voxels[0])
        for identifier, (x, y, z) in self.outputs.items():
            node = slicer.mrmlScene.GetNodeByID(identifier)
            there = world_lps(fixed, (x, y, len(voxels) - 1 - z if turned else z))
            if node is not None and np.linalg.norm(middle(node) - there) > 1e-3:
                found.add(node.GetName())
        return found

    def drawn(self) -> set[str]:
        """The names of the outputs that are drawn on the bone."""
        import slicer

        nodes = filter(None, map(slicer.mrmlScene.GetNodeByID, self.outputs))
        displays = [(node, node.GetDisplayNode()) for node in nodes if not node.IsA("vtkMRMLVolumeNode")]
        return {node.GetName() for node, display in displays if display.GetVisibility()}

    def holds(self, deleted: bool = False) -> bool:
        """Whether all that the verdict was about is as it was, wherever both volumes are.

        Args:
            deleted: also where the transform is gone.
        """
        import slicer

        nodes = [slicer.mrmlScene.GetNodeByID(one) for one in (*self.ids, self.transform)]
        if deleted and nodes[2] is None:
            nodes.pop()
        if any(node is None or (node.IsA("vtkMRMLVolumeNode") and node.GetImageData() is None) for node in nodes):
            return False
        places = []
        for node, then, indices in zip(nodes, self.voxels, (self.fixed, self.moving), strict=False):
            parent = node.GetParentTransformNode()
            if parent is not None and not parent.IsTransformToWorldLinear():
                return False
            now = slicer.util.arrayFromVolume(node)
            if now.dtype == then.dtype and np.array_equal(now, then):
                places.append([world_lps(node, index) for index in indices])
            elif now.dtype == then.dtype and np.array_equal(now[::-1], then):  # read anew, a right-handed grid
                places.append([world_lps(node, (x, y, len(now) - 1 - z)) for x, y, z in indices])
            else:
                return False
        apart = max(np.linalg.norm(a - b) for a, b in zip(*places, strict=True))
        return apart < 1e-3 and np.allclose(self._lengths(places[0]), self.lengths, rtol=1e-4, atol=0)


class Play:
    """One scene, the panel beside it, and what can be done to it."""

    def __init__(self, host, panel, folder, seed):
        self.host, self.panel, self.folder = host, panel, folder
        self.random = np.random.default_rng(seed)
        host.close_scene()
        grids = [list(GRIDS)[i] for i in self.random.integers(0, len(GRIDS), 2)]
        fixed, moving = add_volume("fixed", grids[0]), add_volume("moving", grids[1])
        for node in (fixed, moving):
            put_under(node, *(rigid(int(self.random.integers(1000))) for _ in range(self.random.integers(0, 3))))
        self.ids = fixed.GetID(), moving.GetID()
        self.records = {}
        self.select(fixed, moving)
        self.align()

    def node(self, which):
        import slicer

        return slicer.mrmlScene.GetNodeByID(self.ids[which])

    @property
    def fixed(self):
        return self.node(0)

    @property
    def moving(self):
        return self.node(1)

    @property
    def transform(self):
        import slicer

        return slicer.mrmlScene.GetNodeByID(self.last)

    def select(self, fixed, moving):
        self.panel.ui.fixedSelector.setCurrentNode(fixed)
        self.panel.ui.movingSelector.setCurrentNode(moving)

    def either(self):
        return self.node(self.random.integers(0, 2))

    def chance(self):
        return rigid(int(self.random.integers(1000)), 0.5)

    # What can be done

    def align(self):
        from DNetRegistrationLib.core.errors import DNetError
        from DNetRegistrationLib.slicer_module.scene import place
        from DNetRegistrationLib.slicer_module.scene_outputs import write_steps

        matrix = self.chance()
        try:
            placed = place(self.fixed, "fixed"), place(self.moving, "moving")
            before = [(placed[1].affine @ (*index, 1.0))[:3] for index in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
            contents = contents_on(placed[0]) if self.random.random() < 0.3 else Contents()  # it takes its time
            *_, transform = write_steps(*placed, aligned(matrix), {}, contents)
        except DNetError:  # something above is mirrored, scaled, or moves the fixed volume too
            return
        self.last = transform.GetID()
        self.records[self.last] = Record(transform, self.fixed, self.moving, before, matrix)

    def show_a_pose_and_take_it_back(self):
        """An alignment that is cancelled while its pose is being checked."""
        from DNetRegistrationLib.core.errors import DNetError
        from DNetRegistrationLib.slicer_module.scene import place
        from DNetRegistrationLib.slicer_module.scene_pose import UncheckedPose

        self.panel._run.preparing = True  # it runs
        try:
            pose = UncheckedPose(place(self.fixed, "fixed"), place(self.moving, "moving"), self.chance())
        except DNetError:
            self.panel._run.preparing = False
            return
        assert not self.panel.ui.verdictLabel.text.startswith("Accepted")
        pose.take_back()
        self.panel._run.preparing = False
        self.moving.Modified()

    def move_the_transform(self):
        import slicer

        if self.transform is not None:
            self.kept = slicer.util.arrayFromTransformMatrix(self.transform)
            slicer.util.updateTransformMatrixFromArray(self.transform, self.chance() @ self.kept)

    def move_it_back(self):
        import slicer

        if self.transform is not None and getattr(self, "kept", None) is not None:
            slicer.util.updateTransformMatrixFromArray(self.transform, self.kept)

    def harden(self):
        self.either().HardenTransform()

    def put_back_under(self):
        if self.transform is not None:
            self.moving.SetAndObserveTransformNodeID(self.last)

    def put_under_another(self):
        self.either().SetAndObserveTransformNodeID(add_transform("other", self.chance()).GetID())

    def take_out(self):
        self.either().SetAndObserveTransformNodeID(None)

    def move_both(self):
        """What is above both is put under one more transform: rigid, scaling, or mirroring."""
        kinds = [self.chance(), np.diag((1.01, 1.0, 1.0, 1.0)), np.diag((-1.0, 1.0, 1.0, 1.0))]
        parent = add_transform("above both", kinds[self.random.integers(0, len(kinds))])
        tops = set()
        for node in (self.fixed, self.moving):
            while node.GetParentTransformNode() is not None:
                node = node.GetParentTransformNode()
            tops.add(node)
        for node in tops:
            node.SetAndObserveTransformNodeID(parent.GetID())

    def shift_an_origin(self):
        node = self.either()
        node.SetOrigin(*np.add(node.GetOrigin(), (0.5, 0.0, 0.0)))

    def double_a_spacing(self):
        node = self.either()
        node.SetSpacing(*(2 * np.array(node.GetSpacing())))

    def double_both_spacings(self):
        for node in (self.fixed, self.moving):
            node.SetSpacing(*(2 * np.array(node.GetSpacing())))

    def crop(self):
        import slicer

        node = self.either()
        voxels = slicer.util.arrayFromVolume(node)[1:].copy()
        if not len(voxels):
            return
        node.SetOrigin(*self._ras(node, (0, 0, 1)))
        slicer.util.updateVolumeFromArray(node, voxels)

    def resample(self):
        import slicer

        node = self.either()
        voxels = slicer.util.arrayFromVolume(node)[::2, ::2, ::2].copy()
        node.SetSpacing(*(2 * np.array(node.GetSpacing())))
        slicer.util.updateVolumeFromArray(node, voxels)

    @staticmethod
    def _ras(node, index):
        import vtk

        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        return matrix.MultiplyPoint((*index, 1.0))[:3]

    def rename(self):
        self.either().SetName(f"renamed {self.random.integers(100)}")

    def edit(self):
        import slicer

        node = self.either()
        self.before_edit = node.GetID(), slicer.util.arrayFromVolume(node).copy()
        slicer.util.arrayFromVolume(node).flat[self.random.integers(0, 100)] += 1
        slicer.util.arrayFromVolumeModified(node)

    def edit_without_a_word(self):
        import slicer

        voxels = slicer.util.arrayFromVolume(self.either())
        voxels.flat[self.random.integers(0, voxels.size)] += 1
        self.panel.exit()
        self.panel.enter()

    def edit_back(self):
        import slicer

        identifier, voxels = getattr(self, "before_edit", (None, None))
        node = slicer.mrmlScene.GetNodeByID(identifier) if identifier else None
        if node is not None:
            slicer.util.updateVolumeFromArray(node, voxels)

    def replace_by_a_copy(self):
        import vtk

        copy = vtk.vtkImageData()
        copy.DeepCopy(self.either().GetImageData())
        self.either().SetAndObserveImageData(copy)

    def undo(self):
        above = self.moving.GetParentTransformNode()
        if self.panel.ui.undoButton.enabled:
            self.panel.ui.undoButton.click()
            assert self.moving.GetParentTransformNode() is not above
            assert self.panel.ui.verdictLabel.text.startswith("Undone: ")
            self.panel.enter()
            self.moving.Modified()  # the message goes when anything happens to the volumes

    def compare(self):
        """As aligned or as before: the other of the two, where it can be chosen."""
        box, before = self.panel.ui.appliedCheckBox, positions(self.moving)
        if box.enabled:
            applied = box.checked
            box.click()
            assert box.checked != applied and not np.array_equal(positions(self.moving), before)

    def save_and_load(self):
        import slicer

        folder = self.folder / f"scene {len(list(self.folder.iterdir()))}"
        assert slicer.util.saveScene(str(folder))
        self.host.close_scene()
        slicer.util.loadScene(str(next(folder.glob("*.mrml"))))
        self.host.process_events()

    def clone(self):
        """A copy of the moving volume is chosen: it was not aligned. Then the first one again."""
        import slicer

        moving = self.moving
        copy = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, moving, "clone")
        copy.SetAndObserveTransformNodeID(moving.GetTransformNodeID())
        self.panel.ui.movingSelector.setCurrentNode(copy)
        assert self.panel.ui.verdictLabel.text == "Not aligned yet."
        self.select(self.moving, self.fixed)
        assert self.panel.ui.verdictLabel.text == "Not aligned yet."
        self.select(self.fixed, self.moving)

    def delete(self):
        import slicer

        if self.transform is not None:
            record = self.records[self.last]
            slicer.mrmlScene.RemoveNode(self.transform)
            assert not record.drawn() or record.holds(deleted=True)


DEEDS = [name for name in vars(Play) if not name.startswith("_")]
DEEDS = [name for name in DEEDS if name not in ("node", "fixed", "moving", "transform", "select", "either", "chance")]


def check(play):
    """What the panel says is so."""
    import slicer

    ui = play.panel.ui
    for record in play.records.values():  # of one that was deleted, see `Play.delete`
        if slicer.mrmlScene.GetNodeByID(record.transform) is not None:
            assert record.drawn() <= (record.drawn() - record.behind() if record.holds() else set())
    text, good = ui.verdictLabel.text, GOOD in ui.verdictLabel.styleSheet
    holding = [record for record in play.records.values() if record.holds()]
    assert good == bool(holding) == text.startswith("Accepted"), text
    told = [line for line in ui.detailsLabel.text.splitlines() if line.startswith("Left where the fixed volume was")]
    if good:
        (behind,) = {frozenset(record.behind()) for record in holding}
        names = told[0].partition("moved: ")[2].removesuffix(". Align again.").split(", ") if told else []
        assert set(names) == behind, (names, behind)
    assert ui.undoButton.enabled == play.panel.logic.isAligned(play.moving)
    assert ui.undoButton.enabled or "Undo, or" not in text
    if good and "as after hardening" in ui.detailsLabel.text:
        assert play.moving.GetTransformNodeID() not in [record.transform for record in holding]
    if text.startswith("Aligned, but not applied"):  # doing what it says lays the bones on each other
        name, parent = text.partition("moving volume under ")[2][:-1], play.moving.GetTransformNodeID()
        outcomes = []
        for record in play.records.values():
            node = slicer.mrmlScene.GetNodeByID(record.transform)
            if node is not None and node.GetName() == name:
                play.moving.SetAndObserveTransformNodeID(node.GetID())
                outcomes.append(record.holds())
        play.moving.SetAndObserveTransformNodeID(parent)
        assert any(outcomes)


@pytest.mark.parametrize(
    "seeds",
    [range(4), *(pytest.param(range(first, first + 100), marks=pytest.mark.slow) for first in range(0, 500, 100))],
    ids=str,
)
def test_the_panel_tells_the_truth_whatever_is_done(host, panel, tmp_path, seeds):
    """Sequences of one to eight deeds; each is replayed by its seed alone."""
    done = set()
    for seed in seeds:
        play, deeds = Play(host, panel, tmp_path, seed), ["align"]
        try:
            check(play)
            for _ in range(play.random.integers(1, 9)):
                deeds.append(DEEDS[play.random.integers(0, len(DEEDS))])
                getattr(play, deeds[-1])()
                check(play)
        except AssertionError as problem:
            raise AssertionError(f"seed {seed}: {', '.join(deeds)}: {problem}") from problem
        done |= set(deeds)
    assert len(seeds) < 100 or done == set(DEEDS)


@pytest.fixture
def laid(host):
    """A pair that lies aligned, shown in the panel."""
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place

    host.load(MODULE)
    panel = host.open("DNetRegistration")
    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "far")
    transform = apply_alignment(place(fixed, "fixed"), place(moving, "moving"), aligned(rigid(3)))
    panel.ui.fixedSelector.setCurrentNode(fixed)
    panel.ui.movingSelector.setCurrentNode(moving)
    assert GOOD in panel.ui.verdictLabel.styleSheet
    return panel, fixed, moving, transform


def test_a_hardened_result_is_recognised(laid):
    """And laid once more by the transform, the bone is off: that is said."""
    panel, _fixed, moving, transform = laid
    before = positions(moving)
    moving.HardenTransform()
    np.testing.assert_allclose(positions(moving), before, atol=1e-9)
    assert panel.ui.verdictLabel.text.startswith("Accepted") and not panel.ui.undoButton.enabled
    assert "as after hardening: Undo cannot take it back" in panel.ui.detailsLabel.text
    moving.SetAndObserveTransformNodeID(transform.GetID())
    assert np.abs(positions(moving) - before).max() > 1
    assert (
        panel.ui.verdictLabel.text
        == "Moved since it was aligned: the verdict does not apply to this. Undo, or align again."
    )


@pytest.mark.parametrize("who", [1, 2])
@pytest.mark.parametrize("deed", ["origin", "spacing", "voxels"])
def test_a_volume_that_was_changed_loses_the_verdict(laid, who, deed):
    import slicer

    panel, node = laid[0], laid[who]
    if deed == "origin":
        node.SetOrigin(*np.add(node.GetOrigin(), (0.0, 0.5, 0.0)))
    elif deed == "spacing":
        node.SetSpacing(*(2 * np.array(node.GetSpacing())))
    else:
        slicer.util.arrayFromVolume(node)[0, 0, 0] += 1
        slicer.util.arrayFromVolumeModified(node)
    cause = "Voxels were changed since it was aligned" if deed == "voxels" else "Moved since it was aligned"
    assert panel.ui.verdictLabel.text.startswith(cause) and GOOD not in panel.ui.verdictLabel.styleSheet


def test_check_sums_are_of_all_voxels_their_shape_and_type(host):
    import slicer
    from DNetRegistrationLib.slicer_module.bond import check_sums

    voxels = np.random.default_rng(0).integers(0, 50, (4, 5, 6)).astype(np.int16)
    other = voxels.copy()
    other[2, 3, 4] += 1
    kinds = [voxels, other, voxels[::-1], voxels[:, ::-1], voxels.reshape(5, 4, 6), voxels.astype(np.uint16)]
    sums = [check_sums(slicer.util.addVolumeFromArray(np.ascontiguousarray(one))) for one in kinds]
    assert len(set(sums)) == len(kinds) and sums[2] == sums[0][::-1]
    assert check_sums(slicer.util.addVolumeFromArray(voxels.copy())) == sums[0]


def test_an_alignment_without_a_record_is_not_vouched_for(laid):
    panel, _fixed, moving, transform = laid
    transform.SetAttribute("DNetRegistration.bond", None)
    moving.Modified()
    assert panel.ui.verdictLabel.text.startswith("What was aligned is not on record") and not panel.ui.detailsLabel.text
