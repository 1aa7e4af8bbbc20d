"""Figure 5: what is rendered is where it should be. Skipped where VTK, or a way to draw off screen, is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.bone.cortex import CorticalBone
from DNetRegistrationLib.core.errors import PackageError
from DNetRegistrationLib.experiments.paper import surfaces as evaluation_surfaces
from DNetRegistrationLib.experiments.paper.surfaces import CannotDrawError, PlacedSurface, draw_surfaces
from PIL import Image

OBLIQUE = np.array(((0.8, -0.6, 0), (0.6, 0.8, 0), (0, 0, 1)))


@pytest.fixture
def bone():
    """A rod along the third axis of an oblique, left-handed grid, off the origin."""
    cortex = np.zeros((30, 20, 20), bool)
    cortex[4:26, 8:12, 7:13] = True
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE * (0.1, 0.1, -0.1)
    affine[:3, 3] = (40, -30, 20)
    return CorticalBone(cortex, cortex, np.zeros(cortex.shape, np.float32), affine)


def test_surfaces_lie_where_transforms_put_them(bone, tmp_path, monkeypatch):
    pytest.importorskip("vtkmodules")
    pictures = []

    def kept(title, panels, placed):
        pictures.extend(panels)
        return composed(title, panels, placed)

    composed = evaluation_surfaces._composed
    monkeypatch.setattr(evaluation_surfaces, "_composed", kept)
    # The moving scan has a world of its own: there, the rod lies 50 mm away and is turned.
    away = np.eye(4)
    away[:3, :3], away[:3, 3] = OBLIQUE.T, (50, 0, 0)
    moving = replace(bone, affine=away @ bone.affine)
    off = np.eye(4)
    off[:3, 3] = 0.5 * OBLIQUE[:, 0]
    far = np.eye(4)
    far[:3, 3] = (0, 0, 90)
    placed = [
        PlacedSurface("true", away, 1.0),
        PlacedSurface("off", away @ off, 0.2),
        PlacedSurface("far", away @ far, 0.0),
    ]
    try:
        figure = draw_surfaces("a <rod> $x$", (bone, moving), placed)
    except CannotDrawError as error:
        if "off screen" in str(error):
            pytest.skip(str(error))
        raise
    figure.savefig(tmp_path / "5.png")
    assert Image.open(tmp_path / "5.png").size[0] > 900

    def shares(picture):
        picture = picture.astype(int)
        red = picture[..., 0] - picture[..., 1] > 60
        white = (picture < 255).any(-1) & ~red
        return red.mean(), white.mean()

    (true_red, true_white), (off_red, off_white), (far_red, far_white) = (shares(picture) for picture in pictures)
    # One on the other they fight for each pixel; half a millimetre beside, both are seen; far away, one.
    assert true_red + true_white == pytest.approx(far_white, rel=0.1)
    assert off_red > 0.2 * far_white and off_red + off_white > 1.3 * far_white
    assert far_red == 0


def test_without_vtk_it_says_so(bone, monkeypatch):
    monkeypatch.setattr(evaluation_surfaces, "find_spec", lambda name: None)
    with pytest.raises(PackageError, match='vtk is not installed; install it: pip install "dnet-regis'):
        draw_surfaces("", (bone, bone), [PlacedSurface("x", np.eye(4), 1.0)])
