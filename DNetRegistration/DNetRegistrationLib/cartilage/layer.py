"""Thickness of a layer, from profiles seen through the scanner's blur. Needs no torch.

A layer thinner than the point spread still tells its thickness where its level is known, and neighbours share their
level. So is cortical bone measured below the resolution (Treece et al., Med Image Anal 14:276, 2010). Here the bone's
edge is known besides, from the scan without agent.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product

import numpy as np
from scipy import sparse
from scipy.special import ndtr

from ..core.threads import in_threads

# Thicknesses that are tried, mm.
THICKEST, _STEP = 0.16, 0.003
THICKNESSES = np.arange(_STEP, THICKEST, _STEP)
# How far the level of a layer may differ from that of its neighbours, as a share of it.
_LEVEL_SPREAD = 0.12
# A thickness may differ from its neighbours' by about this, mm, and this share of it; then chi-squared grows to this.
_JUMP, _JUMP_SHARE, _JUMP_COST = 0.01, 0.25, 30.0
# Fits with the neighbours' help.
_ROUNDS = 3
# As many profiles tell how agent grades through the layer; another shape must be better by this share of chi-squared.
# Shapes whose chi-squared is larger than the best one's by this share are less likely by a factor of e.
_SHAPE_SAMPLE, _SHAPE_GAIN, _SHAPE_DOUBT = 1200, 0.01, 0.03
# How far beyond the neighbours' thickness a profile is looked at: in widths of the blur, and at least to here, mm.
_BEYOND, _LEAST_WINDOW = 2.5, 0.03


@dataclass(frozen=True)
class Shape:
    """How the level of a layer changes with depth, relative to its mean level.

    Attributes:
        gradient: it rises linearly from 1 - this at the bone to 1 + this at the outer face.
        washed, reach: the share that is lost at the outer face, and the depth where 1/e of that is, mm.
    """

    gradient: float = 0.0
    washed: float = 0.0
    reach: float = 0.01


SHAPES = [
    Shape(gradient, *lost)
    for gradient, lost in product(
        (-0.6, -0.3, 0.0, 0.3, 0.6), ((0.0, 0.01), (0.4, 0.01), (0.4, 0.03), (0.75, 0.01), (0.75, 0.03))
    )
]


@dataclass(frozen=True)
class Profiles:
    """Grey values along normals, the bone's edge at height 0.

    Attributes:
        values: ``(n, k)``, NaN where not seen.
        noise: standard deviation of a value.
        edge: standard deviation of what may be left of the bone's edge in them, in grey values.
        bone: bone itself is not in them, only what is left of its edge.
        blur: standard deviation of the point spread, mm.
    """

    values: np.ndarray
    noise: float
    edge: float
    bone: bool
    blur: float

    def part(self, chosen: np.ndarray) -> Profiles:
        """Of some points."""
        return Profiles(self.values[chosen], self.noise, self.edge, self.bone, self.blur)


@dataclass(frozen=True)
class Layers:
    """What was found at ``n`` points.

    Attributes:
        thickness_mm: the likeliest one.
        error_mm: standard error of the thickness.
        level: of the layer in the difference, in grey values over bone.
        beyond: level of what lies on the layer there.
        evidence: by how much chi-squared is less with a layer than without.
        closed: by how much chi-squared is less with an end of the layer than without one.
        misfit: mean square of what the fit leaves, in units of the noise.
    """

    thickness_mm: np.ndarray
    error_mm: np.ndarray
    level: np.ndarray
    beyond: np.ndarray
    evidence: np.ndarray
    closed: np.ndarray
    misfit: np.ndarray

    def part(self, left: np.ndarray) -> Layers:
        """At some points."""
        return Layers(**{one.name: getattr(self, one.name)[left] for one in fields(self)})


def responses(heights: np.ndarray, thicknesses: np.ndarray, blur: float, shape: Shape | None = None) -> np.ndarray:
    """``(m, k)`` profiles of layers of mean level 1 on the bone's edge at 0, through a Gaussian.

    Args:
        heights: ``(k,)`` mm.
        thicknesses: ``(m,)`` mm.
        blur: standard deviation, mm.
        shape: how the level changes with depth; even without one.
    """
    if shape is None or not (shape.gradient or shape.washed):
        return ndtr(heights[None] / blur) - ndtr((heights[None] - thicknesses[:, None]) / blur)
    # Slabs of even level.
    faces = np.linspace(0, 1, 25)
    steps = ndtr((heights[None, None] - thicknesses[:, None, None] * faces[None, :, None]) / blur)
    middle = (faces[1:] + faces[:-1]) / 2
    level = 1 + shape.gradient * (2 * middle[None] - 1) * np.ones((len(thicknesses), 1))
    level = level * (1 - shape.washed * np.exp((middle[None] - 1) * thicknesses[:, None] / shape.reach))
    return ((steps[:, :-1] - steps[:, 1:]) * level[..., None]).sum(1)


def fit_layers(
    difference: Profiles, plain: Profiles, heights: np.ndarray, smooth: sparse.csr_matrix, step: float
) -> tuple[Layers, float]:
    """Fits a layer to each profile: its thickness, its level, and that of what lies on it.

    Args:
        difference: of the scan with agent over that without.
        plain: of the scan without agent, which may show the layer's outer face too.
        heights: ``(k,)`` mm, evenly spaced.
        smooth: ``(n, n)`` weights of the neighbours that share a level.
        step: the distance of values that are independent of each other, mm.

    Returns:
        The layers, and the standard error (mm) that all thicknesses share since profiles leave the shape open.
    """
    spacing = heights[1] - heights[0]
    thicker = max(step / spacing, 1.0)
    window = np.ones((len(difference.values), len(heights)), np.float32)
    layers = _fit(difference, plain, heights, window, thicker, Shape(), None, None)
    shape, doubt = Shape(), 0.0
    for turn in range(_ROUNDS):
        blur = difference.blur
        typical = layers.level[layers.evidence > 30]
        least = 0.3 * np.median(typical) if typical.size else 0.0
        trusted = np.clip(layers.evidence, 0, 100) * (layers.level > least)
        level = _shared(layers.level, trusted, smooth)
        near = _shared(layers.thickness_mm, trusted, smooth)
        reach = np.maximum(near * (1 + _JUMP_SHARE) + _BEYOND * blur + 2 * spacing, _LEAST_WINDOW)
        window = (heights[None] <= reach[:, None]).astype(np.float32)
        if turn == 0:
            shape, doubt = _shape(difference, plain, heights, window, thicker, trusted)
            layers = _fit(difference, plain, heights, window, thicker, shape, None, near)
        else:
            layers = _fit(difference, plain, heights, window, thicker, shape, level, near)
    return layers, doubt


def _shape(
    difference: Profiles, plain: Profiles, heights: np.ndarray, window: np.ndarray, thicker: float, trusted: np.ndarray
) -> tuple[Shape, float]:
    """The shape that fits the clearest profiles best, even unless another one is clearly better.

    Other shapes that fit nearly as well make the layers thicker or thinner: with it comes the standard deviation over
    all shapes, weighted by their likelihood, of the mean thickness, mm.
    """
    sure = np.flatnonzero(trusted >= np.quantile(trusted, 0.5))
    sure = sure[:: max(1, len(sure) // _SHAPE_SAMPLE)]
    first, second = _channels(difference.part(sure), plain.part(sure), heights, window[sure], thicker)
    edges = second.layers(Shape(), None)[0]
    total, means = np.empty((2, len(SHAPES)))
    for row, shape in enumerate(SHAPES):
        chi = first.layers(shape, None)[0] + edges
        total[row], means[row] = chi.min(0).sum(), THICKNESSES[chi.argmin(0)].mean()
    best, even = int(total.argmin()), SHAPES.index(Shape())
    if total[best] >= (1 - _SHAPE_GAIN) * total[even]:
        best = even
    # Where both scans see no place in common, nothing is left over by any shape.
    likely = np.exp(-(total / max(float(total.min()), 1e-30) - 1) / _SHAPE_DOUBT)
    # About the thickness of the shape that is taken.
    return SHAPES[best], float(np.sqrt(np.average((means - means[best]) ** 2, weights=likely)))


def _shared(values: np.ndarray, weight: np.ndarray, smooth: sparse.csr_matrix) -> np.ndarray:
    """Means over neighbours, weighted; of all where no neighbour tells."""
    overall = np.average(values, weights=weight) if weight.sum() > 0 else 0.0
    little = 1e-3 * max(float(weight.mean()), 1e-9)
    return (smooth @ (weight * values) + little * overall) / (smooth @ weight + little)


def _fit(
    difference: Profiles,
    plain: Profiles,
    heights: np.ndarray,
    window: np.ndarray,
    thicker: float,
    shape: Shape,
    level: np.ndarray | None,
    near: np.ndarray | None,
) -> Layers:
    """One fit at all thicknesses. Levels are least squares; `level` and `near` (or None) are what neighbours say."""
    first, second = _channels(difference, plain, heights, window, thicker)
    prior = None
    if level is not None:
        prior = level, np.maximum(_LEVEL_SPREAD * np.abs(level), 0.3 * first.deviation)
    chi, levels = first.layers(shape, prior)
    chi += second.layers(Shape(), None)[0]
    bare, endless, rest = first.endless(None), first.endless(prior), second.endless(None)
    if near is not None:
        apart = ((THICKNESSES[:, None] - near) / (_JUMP + _JUMP_SHARE * near)) ** 2
        total = chi + (_JUMP_COST * apart / (1 + apart)).astype(np.float32)
    else:
        total = chi
    at = total.argmin(0)
    points = np.arange(len(window))
    middle = np.clip(at, 1, len(THICKNESSES) - 2)
    left, here, right = (total[middle + shift, points].astype(float) for shift in (-1, 0, 1))
    bend = np.maximum(left - 2 * here + right, 1e-6)
    thickness = THICKNESSES[middle] + _STEP * np.clip((left - right) / (2 * bend), -1, 1)
    best = chi[at, points]
    used = np.maximum((first.window + second.window).sum(1) / thicker, 1)
    return Layers(
        thickness_mm=np.clip(thickness, 0, None),
        error_mm=_STEP * np.sqrt(2 / bend),
        level=levels[at, points, 0].astype(float),
        beyond=levels[at, points, 1].astype(float),
        evidence=bare + rest - best,
        closed=endless + rest - best,
        misfit=best / used,
    )


def _channels(
    difference: Profiles, plain: Profiles, heights: np.ndarray, window: np.ndarray, thicker: float
) -> tuple[_Channel, _Channel]:
    """Both kinds of profiles, looked at where both are known."""
    known = window * (np.isfinite(difference.values) & np.isfinite(plain.values))
    # Below its edge, bone is not even.
    above = heights > -0.5 * plain.blur
    return _Channel(difference, heights, known, thicker), _Channel(plain, heights, known * above, thicker)


def _different(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different ones of ``(n, k)`` bool rows, ``(m, k)`` float, and the number ``(n,)`` of each row among them."""
    packed = np.packbits(rows, axis=1)
    # As large integers they are sorted ten times as fast as by `unique`.
    words = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(">u8").astype(np.uint64)
    order = np.lexsort(words.T[::-1])
    words = words[order]
    begins = np.ones(len(rows), bool)
    begins[1:] = (words[1:] != words[:-1]).any(1)
    number = np.empty(len(rows), np.intp)
    number[order] = begins.cumsum() - 1
    return rows[order[begins]].astype(float), number


class _Channel:
    """Least squares for the levels in one kind of profiles, at given thicknesses.

    Profiles with one window share their normal equations, which are solved once for all of them.
    """

    def __init__(self, profiles: Profiles, heights: np.ndarray, window: np.ndarray, thicker: float) -> None:
        self.window = window.astype(np.float32)
        self.deviation = float(profiles.noise * np.sqrt(thicker))
        self._heights, self._blur = heights, profiles.blur
        self._windows, self._number = _different(window > 0)
        self._inverse = 1 / self.deviation**2
        self._values = self.window * np.nan_to_num(profiles.values).astype(np.float32)
        self._squares = (self._values.astype(float) ** 2).sum(1) * self._inverse
        scaled = heights / profiles.blur
        bell = np.exp(-(scaled**2) / 2)
        # The level of bone, a shift and a widening of its edge.
        self._fixed = np.stack((ndtr(-scaled), bell, scaled * bell))
        self._prior = np.array([1 / profiles.edge**2 if profiles.bone else 0.0, *[1 / profiles.edge**2] * 2])
        self._right = self._projected(self._fixed)

    def layers(self, shape: Shape, prior: tuple | None) -> tuple[np.ndarray, np.ndarray]:
        """Chi-squared ``(m, n)`` of layers of all `THICKNESSES`; levels ``(m, n, 2)`` of the layer and beyond it."""
        chi = np.empty((len(THICKNESSES), len(self.window)), np.float32)
        levels = np.empty((*chi.shape, 2), np.float32)
        within = responses(self._heights, THICKNESSES, self._blur, shape)

        def fit(row: int) -> None:
            outside = ndtr((self._heights - THICKNESSES[row]) / self._blur)
            chi[row], solution = self._residual(np.stack((within[row], outside)), prior)
            levels[row] = solution[:, -2:]

        in_threads(fit, range(len(THICKNESSES)))
        return chi, levels

    def endless(self, prior: tuple | None) -> np.ndarray:
        """Chi-squared ``(n,)`` of one level from the bone on."""
        return self._residual(ndtr(self._heights / self._blur)[None], prior)[0]

    def _projected(self, basis: np.ndarray) -> np.ndarray:
        return (self._values @ basis.T.astype(np.float32)).astype(float) * self._inverse

    def _residual(self, more: np.ndarray, prior: tuple | None) -> tuple[np.ndarray, np.ndarray]:
        """Chi-squared ``(n,)`` and the coefficients ``(n, 3 + len(more))``; `prior` is of the first of `more`."""
        basis = np.concatenate((self._fixed, more))
        size = len(basis)
        pairs = (basis[:, None] * basis[None]).reshape(size * size, -1)
        matrix = (self._windows @ pairs.T).reshape(-1, size, size) * self._inverse
        matrix[:, range(3), range(3)] += self._prior
        # A little keeps levels that no value tells at 0.
        matrix[:, range(size), range(size)] += 1e-6 * self._inverse
        inverse = np.linalg.inv(matrix)[self._number]
        right = np.concatenate((self._right, self._projected(more)), 1)
        solution = np.einsum("nij,nj->ni", inverse, right)
        chi = self._squares - (right * solution).sum(1)
        if prior is not None:
            # It changes the equations by a matrix of rank one (Sherman & Morrison, Ann Math Stat 21:124, 1950).
            mean, spread = prior
            off, loose = mean - solution[:, 3], spread**2 + inverse[:, 3, 3]
            solution += inverse[:, :, 3] * (off / loose)[:, None]
            chi += off**2 / loose
        return chi, solution
