"""Rigid refinement by Gauss-Newton on points at the edges of bone, from coarse to native resolution.

One scan is the template: points at its voxel centres, where bone begins or ends, with their values and gradients, which
are computed once (inverse compositional: Baker & Matthews, IJCV 56:221, 2004). The other scan is only ever read at the
points' images. Any number of start transforms are refined at once; the code is the same on every device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .preprocessing import BoneImage
from .sampling import sample_linear

# Tukey's biweight loses 5 % of efficiency on normal noise at this multiple of the deviation.
TUKEY = 4.685
# Residuals below this (dense bone is 1) are never outliers: interpolation alone makes as much.
LEAST_DEVIATION = 0.03


@dataclass(frozen=True)
class Template:
    """Points of one scan at the edges of its bone.

    Attributes:
        index: ``(n, 3)`` float32 voxel indices (x, y, z).
        affine: ``(4, 4)`` float64, index to world LPS mm.
        values: ``(n,)`` bone values.
        gradient: ``(n, 3)`` their gradient per mm, along world x, y, z.
        center: ``(3,)`` float64 world centroid of the points, about which rotations are taken.
        radius: root mean square distance of the points from it, in mm.
    """

    index: Tensor
    affine: np.ndarray
    values: Tensor
    gradient: Tensor
    center: np.ndarray
    radius: float

    def local(self) -> Tensor:
        """``(n, 3)`` positions relative to `center`, in mm."""
        linear = torch.as_tensor(self.affine[:3, :3], dtype=torch.float32, device=self.index.device)
        offset = torch.as_tensor(self.affine[:3, 3] - self.center, dtype=torch.float32, device=self.index.device)
        return self.index @ linear.T + offset


def edge_template(image: BoneImage, count: int) -> Template:
    """The `count` voxels of steepest bone value, away from the border of the field of view."""
    values = image.values
    gradient = index_gradient(values)
    to_world = torch.as_tensor(np.linalg.inv(image.affine[:3, :3]), dtype=torch.float32, device=values.device)
    gradient = gradient @ to_world
    strength = gradient.square().sum(-1).sqrt()
    if image.inside is not None:
        strength = strength * (erode(image.inside) > 0.999)
    for axis in range(3):
        strength.narrow(axis, 0, 1).zero_()
        strength.narrow(axis, values.shape[axis] - 1, 1).zero_()
    flat = strength.view(-1)
    count = min(count, int((flat > 0.05 * flat.max()).sum()))
    chosen = flat.topk(count, sorted=False).indices.sort().values
    height, width = values.shape[1:]
    index = torch.stack((chosen % width, chosen // width % height, chosen // (width * height)), dim=-1).float()
    return make_template(index, image.affine, values.view(-1)[chosen], gradient.view(-1, 3)[chosen])


def make_template(index: Tensor, affine: np.ndarray, values: Tensor, gradient: Tensor) -> Template:
    """A `Template` of points with their values and gradients, centred on them."""
    mean = index.double().mean(0).cpu().numpy()
    center = affine[:3, :3] @ mean + affine[:3, 3]
    template = Template(index, affine, values, gradient, center, 1.0)
    radius = float(template.local().square().sum(-1).mean().sqrt())
    return Template(index, affine, values, gradient, center, radius)


def index_gradient(values: Tensor) -> Tensor:
    """Central differences ``(z, y, x, 3)`` of an image per voxel, in the order x, y, z; zero on the border."""
    gradient = values.new_zeros((*values.shape, 3))
    gradient[:, :, 1:-1, 0] = (values[:, :, 2:] - values[:, :, :-2]) / 2
    gradient[:, 1:-1, :, 1] = (values[:, 2:] - values[:, :-2]) / 2
    gradient[1:-1, :, :, 2] = (values[2:] - values[:-2]) / 2
    return gradient


def erode(inside: Tensor) -> Tensor:
    """The least share inside among each voxel and its 26 neighbours."""
    return -torch.nn.functional.max_pool3d(-inside[None, None], 3, stride=1, padding=1)[0, 0]


def index_maps(template: Template, image_affine: np.ndarray, transforms: Tensor) -> Tensor:
    """``(h, 4, 4)`` float64: template index to image index through each world transform."""
    to_index = torch.from_numpy(np.linalg.inv(image_affine))
    return to_index @ transforms @ torch.from_numpy(template.affine)


def sample_through(template: Template, image: BoneImage, transforms: Tensor) -> tuple[Tensor, Tensor]:
    """``(h, n)`` bone values of `image` at the template's points through each of ``(h, 4, 4)``, and their share inside."""
    maps = index_maps(template, image.affine, transforms).to(torch.float32).to(template.index.device)
    index = template.index @ maps[:, :3, :3].transpose(-1, -2) + maps[:, None, :3, 3]
    values, inside = image.sample(index.view(-1, 3))
    return values.view(index.shape[:2]), inside.view(index.shape[:2])


@dataclass(frozen=True)
class Fit:
    """Where Gauss-Newton ended, for ``h`` starts.

    Attributes:
        transforms: ``(h, 4, 4)`` float64, template space to image space.
        gain: ``(h,)`` what the image's values were multiplied with.
        residual: ``(h, n)`` gain x image - template at the end, and `weight`: ``(h, n)`` what each point counted.
    """

    transforms: Tensor
    gain: Tensor
    residual: Tensor
    weight: Tensor


def gauss_newton(
    template: Template,
    image: BoneImage,
    transforms: Tensor,
    iterations: int,
    keep: Tensor | None = None,
    tolerance: float = 0.0,
) -> Fit:
    """Refines ``(h, 4, 4)`` world transforms, template to image, with a robust weight and a fitted gain.

    Each step solves for six motion parameters and the gain together: gain * image(T p) = f(p) + J xi, where xi moves the
    template's points about their centroid, and then composes T with the inverse of that motion.

    Args:
        template: the points.
        image: the other scan at about the same resolution.
        transforms: start, float64, on the CPU.
        iterations: the most steps.
        keep: ``(n,)`` weight of each point, or None for one.
        tolerance: stop when no start moved a point at the template's radius by more than this, in mm.
    """
    local = template.local() / template.radius
    jacobian = torch.cat((torch.linalg.cross(local, template.gradient), template.gradient), dim=-1)
    # Rotation in radians times the radius and translation in mm: six numbers of like size.
    jacobian = torch.cat((jacobian[:, :3], jacobian[:, 3:]), dim=-1)
    base = torch.ones_like(template.values) if keep is None else keep
    gain = torch.ones(len(transforms), device=local.device)
    step = None
    for iteration in range(iterations + 1):
        values, inside = sample_through(template, image, transforms)
        prior = base * (inside > 0.999)
        residual = gain[:, None] * values - template.values
        if iteration == 0:
            gain = _gain(values, template.values, prior)
            residual = gain[:, None] * values - template.values
        weight = prior * tukey(residual, prior)
        if iteration == iterations or (step is not None and float(step.abs().max()) < tolerance):
            break
        step, gain = _solve(jacobian, values, template.values, weight)
        transforms = transforms @ torch.linalg.inv(motion(step, template.center, template.radius))
    return Fit(transforms, gain, residual, weight)


def _gain(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return ((weight * values * target).sum(-1) / (weight * values * values).sum(-1).clamp(min=1e-6)).clamp(0.2, 5.0)


def tukey(residual: Tensor, prior: Tensor) -> Tensor:
    """Tukey's biweight ``(h, n)`` of residuals, scaled by the median absolute residual of the points that count."""
    masked = residual.abs().where(prior > 0, torch.nan)
    deviation = (1.4826 * masked.nanmedian(-1).values).nan_to_num(1.0).clamp(min=LEAST_DEVIATION)
    return (1 - (residual / (TUKEY * deviation[:, None])).square()).clamp(min=0).square()


def _solve(jacobian: Tensor, values: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted least squares of ``values * gain - jacobian @ step = target``: steps (h, 6) float64, gains (h,)."""
    columns = torch.cat((-jacobian.expand(len(values), -1, -1), values[..., None]), dim=-1)
    weighted = columns * weight[..., None]
    normal = (weighted.transpose(-1, -2) @ columns).double().cpu()
    right = (weighted.transpose(-1, -2) @ target).double().cpu()
    ridge = 1e-6 * normal.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(7, dtype=torch.float64)
    solution = torch.linalg.solve(normal + ridge + 1e-12 * torch.eye(7, dtype=torch.float64), right)
    return solution[:, :6], solution[:, 6].clamp(0.2, 5.0).to(values)


def motion(step: Tensor, center: np.ndarray, radius: float) -> Tensor:
    """``(h, 4, 4)`` rigid motions of ``(h, 6)`` steps: rotation times `radius` about `center`, then translation, in mm."""
    from .rigid import rigid, rotation_from_axis_angle

    vector = step[:, :3] / radius
    angle = vector.norm(dim=-1)
    # A step beyond a quarter radian is out of the linear model's reach.
    shrink = (0.25 / angle.clamp(min=0.25))[:, None]
    axis = torch.where(angle[:, None] > 0, vector, torch.tensor((1.0, 0.0, 0.0), dtype=vector.dtype))
    rotation = rotation_from_axis_angle(axis, angle.clamp(max=0.25))
    middle = torch.from_numpy(np.asarray(center))
    return rigid(rotation, step[:, 3:] * shrink + middle - rotation @ middle)


def bone_template(image: BoneImage, most: int = 20000) -> Template:
    """Every voxel on or beside bone, thinned evenly to at most about `most`; gradients are left zero."""
    near = torch.nn.functional.max_pool3d((image.values > 0.05).float()[None, None], 3, stride=1, padding=1)[0, 0] > 0
    if image.inside is not None:
        near &= image.inside > 0.999
    chosen = near.view(-1).nonzero()[:, 0]
    # A step that shares no factor with a row's length spreads the points over all rows.
    step = max(1, -(-len(chosen) // most))
    chosen = chosen[::step]
    height, width = image.values.shape[1:]
    index = torch.stack((chosen % width, chosen // width % height, chosen // (width * height)), dim=-1).float()
    values = image.values.reshape(-1)[chosen]
    return make_template(index, image.affine, values, values.new_zeros(len(chosen), 3))
