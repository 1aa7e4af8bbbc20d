"""The equivariant D-net: mutual non-local links (Sec. 2.2) between keypoints with rotation-invariant descriptors.

A convolution has to learn every pattern in every orientation. Here nothing that is learned sees an orientation:
keypoints (`keypoints`) bring rotation-invariant numbers; self-attention sees, of two keypoints, their distance and
the angles between their directions and the line that joins them (point pair features, Drost et al., CVPR 2010), and
the sign of the volume these span, which a mirror image reverses; mutual links (Eq. 2 on keypoints, one W for both
scans) see no geometry at all. The output is how likely each keypoint of one scan is each keypoint of the other, or
none of them (matchability, as in LightGlue, Lindenberger et al., ICCV 2023); `geometry.correspondences` turns that
into the rigid transform in closed form. Turn an input, and the answer turns with it; swap the inputs, and the answer
is inverted.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.constants import PAPER_SPACING
from ..geometry.correspondences import Correspondences, distances, spatial_consensus
from .batch import PairBatch
from .contract import Candidate, Criterion, Network
from .keypoints import DESCRIPTOR, Keypoints, find_keypoints

KEYPOINTS = 256
_WIDTH, _HEADS, _ROUNDS = 96, 4, 4
_DIRECTIONS = 2
_FARTHEST, _RADII = 48.0, 16  # voxels; basis functions of a distance
_PAIR = _RADII + 4 * _DIRECTIONS
_NEVER = -1e4


@dataclass(frozen=True)
class Scores:
    """How well the keypoints of two scans match.

    Attributes:
        log_matches: ``(b, n, m)`` logarithm of the confidence that two keypoints are the same place.
        fixed_logits, moving_logits: ``(b, n)`` and ``(b, m)``, of having a partner at all.
    """

    log_matches: Tensor
    fixed_logits: Tensor
    moving_logits: Tensor


@dataclass(frozen=True)
class MatchPrediction:
    """What a criterion judges: the keypoints of both scans, and their scores."""

    fixed: Keypoints
    moving: Keypoints
    scores: Scores


class PairFeatures(nn.Module):
    """The geometry of two keypoints of one scan, as a bias of self-attention for every round and head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(_PAIR, 32), nn.Linear(32, _ROUNDS * _HEADS)

    def forward(self, keypoints: Keypoints) -> list[Tensor]:
        """Biases ``(b, heads, n, n)``, one for each round; they hide keypoints that are not valid."""
        positions, directions = keypoints.positions, keypoints.directions
        # Products of matrices replace products of vectors for every pair: the line from i to j is p_j - p_i, and
        # (n_i x n_j) . (p_j - p_i) = n_i . (n_j x p_j) + n_j . (n_i x p_i).
        distance = distances(positions, positions)[..., None]
        centers = torch.linspace(0, _FARTHEST, _RADII, device=distance.device)
        radial = torch.exp(-0.5 * ((distance - centers) * (_RADII / _FARTHEST)) ** 2)
        normals = directions.transpose(1, 2)  # (b, 2, n, 3)
        places = positions[:, None]
        along = normals @ places.mT  # [.., i, j]: n_i . p_j
        own = (normals * places).sum(-1, keepdim=True)
        # The one number that tells left from right.
        moment = torch.linalg.cross(normals, places.expand_as(normals))
        handed = normals @ moment.mT
        # There is no line from a keypoint to itself; what rounding leaves of it is removed.
        per_length = (distance > 0) / (distance + 1e-3)
        lined = torch.cat((along - own, own.mT - along.mT), 1).movedim(1, -1) * per_length
        handed = (handed + handed.mT).movedim(1, -1) * per_length
        between = (normals @ normals.mT).movedim(1, -1)
        hidden = self.first(torch.cat((radial, lined, between, handed), -1)).relu_()
        biases = self.second(hidden).permute(0, 3, 1, 2) + _hidden(keypoints.valid)[:, None, None]
        return list(biases.unflatten(1, (_ROUNDS, _HEADS)).unbind(1))


class Update(nn.Module):
    """Adds to each keypoint's features a function of them and of a message."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * _WIDTH)
        self.first, self.second = nn.Linear(2 * _WIDTH, 2 * _WIDTH), nn.Linear(2 * _WIDTH, _WIDTH)

    def forward(self, features: Tensor, message: Tensor) -> Tensor:
        return features + self.second(F.gelu(self.first(self.norm(torch.cat((features, message), -1)))))


class SelfAttention(nn.Module):
    """Attention within one scan."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave, self.update = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH), Update()

    def forward(self, features: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (_heads(part) for part in self.enter(features).chunk(3, -1))
        message = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.update(features, self.leave(message.transpose(1, 2).flatten(2)))


class MutualLink(nn.Module):
    """Eq. 2-4 between the keypoints of two scans, in several heads; the embedding of Eq. 3 is shared by both scans."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(_WIDTH, _WIDTH, bias=False)
        self.value, self.leave, self.update = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, _WIDTH), Update()

    def forward(self, fixed: Tensor, moving: Tensor, fixed_bias: Tensor, moving_bias: Tensor) -> tuple[Tensor, Tensor]:
        first, second = _heads(self.embed(fixed)), _heads(self.embed(moving))
        similarity = first @ second.mT / sqrt(_WIDTH // _HEADS)
        similarity = similarity + fixed_bias[:, None, :, None] + moving_bias[:, None, None, :]
        to_fixed = similarity.softmax(-1) @ _heads(self.value(moving))
        to_moving = similarity.softmax(-2).mT @ _heads(self.value(fixed))
        return tuple(
            self.update(features, self.leave(message.transpose(1, 2).flatten(2)))
            for features, message in ((fixed, to_fixed), (moving, to_moving))
        )


class Equivariant(Network):
    """Matches keypoints of two canonical cubes, and fits the rigid transform on which most matches agree."""

    name = "equivariant"
    pairs_to_fit = 16
    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Mean and spread of each number of a descriptor, see `fit`.
        self.register_buffer("mean", torch.zeros(DESCRIPTOR))
        self.register_buffer("spread", torch.ones(DESCRIPTOR))
        self.embed = nn.Sequential(nn.Linear(DESCRIPTOR, 2 * _WIDTH), nn.GELU(), nn.Linear(2 * _WIDTH, _WIDTH))
        self.pairs = PairFeatures()
        self.attention = nn.ModuleList(SelfAttention() for _ in range(_ROUNDS))
        self.links = nn.ModuleList(MutualLink() for _ in range(_ROUNDS))
        self.project, self.matchable = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, 1)
        self.sharpness = nn.Parameter(torch.tensor(1.0))

    def fit(self, batch: PairBatch) -> None:
        """Takes mean and spread of the descriptors from some pairs."""
        found = self._keypoints(batch.fixed, batch.fixed_inside), self._keypoints(batch.moving, batch.moving_inside)
        values = torch.cat([keypoints.descriptors[keypoints.valid] for keypoints in found])
        self.mean.copy_(values.mean(0))
        self.spread.copy_(values.std(0) + 1e-4)

    def forward(self, fixed: Keypoints, moving: Keypoints) -> Scores:
        """Scores of the matches between the keypoints of two scans."""
        scans = [self.embed(((s.descriptors - self.mean) / self.spread).clamp(-4, 4)) for s in (fixed, moving)]
        biases = [self.pairs(scan) for scan in (fixed, moving)]
        absent = [_hidden(scan.valid) for scan in (fixed, moving)]
        for turn, (attention, link) in enumerate(zip(self.attention, self.links, strict=True)):
            scans = [attention(scan, bias[turn]) for scan, bias in zip(scans, biases, strict=True)]
            scans = link(*scans, *absent)
        first, second = (self.project(scan).float() for scan in scans)
        similarity = first @ second.mT * (self.sharpness.exp() / sqrt(_WIDTH))
        similarity = similarity + absent[0][:, :, None] + absent[1][:, None]
        logits = [self.matchable(scan).float()[..., 0] for scan in scans]
        log_matches = similarity.log_softmax(2) + similarity.log_softmax(1)
        log_matches = log_matches + F.logsigmoid(logits[0])[:, :, None] + F.logsigmoid(logits[1])[:, None]
        return Scores(log_matches, *logits)

    def loss(
        self, batch: PairBatch, criterion: Criterion, both_directions: bool = False
    ) -> tuple[Tensor, dict[str, Any]]:
        fixed = self._keypoints(batch.fixed, batch.fixed_inside)
        moving = self._keypoints(batch.moving, batch.moving_inside)
        return criterion(MatchPrediction(fixed, moving, self(fixed, moving)), batch)

    @torch.no_grad()
    def transforms(self, fixed: Tensor, moving: Tensor, fixed_inside: Tensor, moving_inside: Tensor) -> list[Tensor]:
        """For each pair of cubes, ``(h, 4, 4)`` float64 rigid transforms on the CPU, most agreed upon first.

        They map fixed to moving points, (x, y, z) in voxels from the cubes' centres. A pair without bone has none. The
        network runs in float32, also under autocast.
        """
        with torch.autocast(fixed.device.type, enabled=False):
            first, second = self._keypoints(fixed, fixed_inside), self._keypoints(moving, moving_inside)
            if 0 in (first.positions.shape[1], second.positions.shape[1]):
                return [torch.empty(0, 4, 4, dtype=torch.float64) for _ in fixed]
            scores = self(first, second)
        # Few and small from here on: float64, and where a decomposition is fast.
        confidence = scores.log_matches.exp().cpu().double()
        places = first.positions.cpu().double(), second.positions.cpu().double()
        return [spatial_consensus(Correspondences.between(*pair)) for pair in zip(*places, confidence, strict=True)]

    def estimate(
        self, fixed: Tensor, moving: Tensor, fixed_inside: Tensor, moving_inside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The first of `transforms` for each pair; the identity where there is none."""
        found = self.transforms(fixed, moving, fixed_inside, moving_inside)
        best = torch.stack([poses[0] if len(poses) else torch.eye(4).double() for poses in found])
        return best[:, :3, :3], best[:, :3, 3] * PAPER_SPACING

    def candidates(
        self,
        fixed: Tensor,
        moving: Tensor,
        fixed_inside: Tensor,
        moving_inside: Tensor,
        spacing: float,
        turns: int = 1,
    ) -> list[list[Candidate]]:
        """What most of the matches agree on, then what others do."""
        found = self.transforms(fixed, moving, fixed_inside, moving_inside)
        return [[Candidate(pose[:3, :3], pose[:3, 3] * spacing) for pose in poses] for poses in found]

    def _keypoints(self, image: Tensor, inside: Tensor) -> Keypoints:
        return find_keypoints(image[:, 0].float(), inside[:, 0].float(), KEYPOINTS)


def _heads(features: Tensor) -> Tensor:
    """``(b, n, width)`` to ``(b, heads, n, width / heads)``."""
    return features.unflatten(-1, (_HEADS, -1)).transpose(1, 2)


def _hidden(valid: Tensor) -> Tensor:
    """Added to a similarity, it hides keypoints that are not there."""
    return (~valid).float() * _NEVER
