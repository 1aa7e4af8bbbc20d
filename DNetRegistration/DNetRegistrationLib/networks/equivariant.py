"""The equivariant D-net: mutual non-local links (Sec. 2.2) between tokens whose descriptions do not turn with the bone.

A convolution has to learn every pattern in every orientation. Here nothing that is learnt ever sees an orientation:
tokens (`tokens`) bring rotation-invariant numbers; self-attention sees, of two tokens, their distance and the angles
between their directions and the line that joins them (point pair features, Drost et al., CVPR 2010), and the sign of
the volume these span, which a mirror image reverses; mutual links (Eq. 2 on tokens, one W for both scans) see no
geometry at all. What comes out is how likely each token of one scan is each token of the other, or none of them
(matchability, as in LightGlue, Lindenberger et al., ICCV 2023); `consensus` turns that into the rigid transform in
closed form. Turn an input and the answer turns with it; swap the inputs and the answer is inverted.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.constants import PAPER_SPACING
from ..geometry.correspondences import Match, agree, distances
from .keypoints import DESCRIPTOR, Tokens, find_tokens

if TYPE_CHECKING:
    from .batch import PairBatch

TOKENS = 256
_WIDTH, _HEADS, _ROUNDS = 96, 4, 4
_DIRECTIONS = 2
_FARTHEST, _RADII = 48.0, 16  # voxels; basis functions of a distance
_PAIR = _RADII + 4 * _DIRECTIONS
_SPREAD = 0.8  # voxels: tokens that are the same place lie about so far apart
_SAME, _OTHER = 1.5, 2.2  # voxels: nearer is a partner, farther is none
_NEVER = -1e4


@dataclass(frozen=True)
class Scores:
    """What the network thinks of a pair of scans.

    Attributes:
        log_matches: ``(b, n, m)`` logarithm of how sure it is that two tokens are one place.
        fixed_logits, moving_logits: ``(b, n)`` and ``(b, m)``, of having a partner at all.
    """

    log_matches: Tensor
    fixed_logits: Tensor
    moving_logits: Tensor


class PairFeatures(nn.Module):
    """What self-attention sees of two tokens, turned into a bias for every round and head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(_PAIR, 32), nn.Linear(32, _ROUNDS * _HEADS)

    def forward(self, tokens: Tokens) -> list[Tensor]:
        """Biases ``(b, heads, n, n)``, one for each round; nobody looks at tokens that are not valid."""
        positions, directions = tokens.positions, tokens.directions
        # All that follows is products of matrices rather than of vectors for every pair: the line from i to j is
        # p_j - p_i, and (n_i x n_j) . (p_j - p_i) = n_i . (n_j x p_j) + n_j . (n_i x p_i).
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
        # Of a token with itself there is no line, and what rounding leaves of it is nothing.
        per_length = (distance > 0) / (distance + 1e-3)
        lined = torch.cat((along - own, own.mT - along.mT), 1).movedim(1, -1) * per_length
        handed = (handed + handed.mT).movedim(1, -1) * per_length
        between = (normals @ normals.mT).movedim(1, -1)
        hidden = self.first(torch.cat((radial, lined, between, handed), -1)).relu_()
        biases = self.second(hidden).permute(0, 3, 1, 2) + _hidden(tokens.valid)[:, None, None]
        return list(biases.unflatten(1, (_ROUNDS, _HEADS)).unbind(1))


class Update(nn.Module):
    """Adds to each token what it makes of itself and of a message."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * _WIDTH)
        self.first, self.second = nn.Linear(2 * _WIDTH, 2 * _WIDTH), nn.Linear(2 * _WIDTH, _WIDTH)

    def forward(self, tokens: Tensor, message: Tensor) -> Tensor:
        return tokens + self.second(F.gelu(self.first(self.norm(torch.cat((tokens, message), -1)))))


class SelfAttention(nn.Module):
    """Within one scan."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave, self.update = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH), Update()

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (_heads(part) for part in self.enter(tokens).chunk(3, -1))
        message = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.update(tokens, self.leave(message.transpose(1, 2).flatten(2)))


class MutualLink(nn.Module):
    """Eq. 2-4 between the tokens of two scans, in several heads; the embedding of Eq. 3 is shared by both scans."""

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
            self.update(tokens, self.leave(message.transpose(1, 2).flatten(2)))
            for tokens, message in ((fixed, to_fixed), (moving, to_moving))
        )


class Equivariant(nn.Module):
    """Rigid transforms of pairs of canonical cubes, whichever way they are turned."""

    name = "equivariant"

    def __init__(self) -> None:
        super().__init__()
        # Mean and spread of each number of a descriptor, see `fit_descriptors`.
        self.register_buffer("mean", torch.zeros(DESCRIPTOR))
        self.register_buffer("spread", torch.ones(DESCRIPTOR))
        self.embed = nn.Sequential(nn.Linear(DESCRIPTOR, 2 * _WIDTH), nn.GELU(), nn.Linear(2 * _WIDTH, _WIDTH))
        self.pairs = PairFeatures()
        self.attention = nn.ModuleList(SelfAttention() for _ in range(_ROUNDS))
        self.links = nn.ModuleList(MutualLink() for _ in range(_ROUNDS))
        self.project, self.matchable = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, 1)
        self.sharpness = nn.Parameter(torch.tensor(1.0))

    def fit_descriptors(self, batch: PairBatch) -> None:
        """Takes mean and spread of the descriptors from some pairs: once, before training starts."""
        found = [self.tokens(*scan) for scan in _scans(batch)]
        values = torch.cat([tokens.descriptors[tokens.valid] for tokens in found])
        self.mean.copy_(values.mean(0))
        self.spread.copy_(values.std(0) + 1e-4)

    def tokens(self, image: Tensor, inside: Tensor, count: int = TOKENS) -> Tokens:
        """Tokens of cubes ``(b, 1, 64, 64, 64)`` and their fields of view."""
        return find_tokens(image[:, 0].float(), inside[:, 0].float(), count)

    def forward(self, fixed: Tokens, moving: Tokens) -> Scores:
        """Matches between tokens of two scans each."""
        scans = [self.embed(((s.descriptors - self.mean) / self.spread).clamp(-4, 4)) for s in (fixed, moving)]
        biases = [self.pairs(scan) for scan in (fixed, moving)]
        absent = [_hidden(scan.valid) for scan in (fixed, moving)]
        for round, (attention, link) in enumerate(zip(self.attention, self.links, strict=True)):
            scans = [attention(scan, bias[round]) for scan, bias in zip(scans, biases, strict=True)]
            scans = link(*scans, *absent)
        first, second = (self.project(scan).float() for scan in scans)
        similarity = first @ second.mT * (self.sharpness.exp() / sqrt(_WIDTH))
        similarity = similarity + absent[0][:, :, None] + absent[1][:, None]
        logits = [self.matchable(scan).float()[..., 0] for scan in scans]
        log_matches = similarity.log_softmax(2) + similarity.log_softmax(1)
        log_matches = log_matches + F.logsigmoid(logits[0])[:, :, None] + F.logsigmoid(logits[1])[:, None]
        return Scores(log_matches, *logits)

    def loss(self, batch: PairBatch) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of matches against the true partners, and of matchability against there being none.

        Returns:
            The loss, a scalar, and its two parts for the log.
        """
        fixed, moving = (self.tokens(*scan) for scan in _scans(batch))
        scores = self(fixed, moving)
        rotation, translation = batch.rotation.to(fixed.positions), batch.translation.to(fixed.positions)
        arrived = fixed.positions @ rotation.mT + translation[:, None] / PAPER_SPACING
        apart = distances(arrived, moving.positions)
        apart = apart - _hidden(fixed.valid)[:, :, None] - _hidden(moving.valid)[:, None]
        likely = torch.exp(-0.5 * (apart / _SPREAD) ** 2) * (apart < 3 * _SPREAD)
        log_matches = scores.log_matches.clamp(min=-60)
        matching = unmatched = 0.0
        for axis, logits, valid in ((2, scores.fixed_logits, fixed.valid), (1, scores.moving_logits, moving.valid)):
            nearest = apart.amin(axis)
            share = likely / likely.sum(axis, keepdim=True).clamp(min=1e-6)
            entropy = -(share * log_matches).sum(axis)
            matching = matching + 0.5 * _mean(entropy, nearest < _SAME)
            unmatched = unmatched + 0.5 * _mean(F.softplus(logits), (nearest > _OTHER) & valid)
        return matching + unmatched, {"matching": float(matching.detach()), "unmatched": float(unmatched.detach())}

    @torch.no_grad()
    def candidates(self, fixed: Tensor, moving: Tensor, fixed_inside: Tensor, moving_inside: Tensor) -> list[Tensor]:
        """For each pair of cubes, ``(h, 4, 4)`` float64 rigid transforms on the CPU, most agreed upon first.

        They map fixed to moving points, (x, y, z) in voxels from the cubes' centres. A pair without bone has none.
        """
        first, second = self.tokens(fixed, fixed_inside), self.tokens(moving, moving_inside)
        if 0 in (first.positions.shape[1], second.positions.shape[1]):
            return [torch.empty(0, 4, 4, dtype=torch.float64) for _ in fixed]
        scores = self(first, second)
        # Few and small from here on: float64, and where a decomposition is fast.
        confidence = scores.log_matches.exp().cpu().double()
        places = first.positions.cpu().double(), second.positions.cpu().double()
        return [agree(Match.between(*pair)) for pair in zip(*places, confidence, strict=True)]

    def estimate(
        self, fixed: Tensor, moving: Tensor, fixed_inside: Tensor, moving_inside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The first of `candidates` for each pair; where there is none, that nothing moves.

        Returns:
            Rotations ``(b, 3, 3)`` and translations ``(b, 3)`` in mm at the paper's spacing, float64.
        """
        found = self.candidates(fixed, moving, fixed_inside, moving_inside)
        best = torch.stack([poses[0] if len(poses) else torch.eye(4).double() for poses in found])
        return best[:, :3, :3], best[:, :3, 3] * PAPER_SPACING


def _scans(batch: PairBatch) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return (batch.fixed, batch.fixed_inside), (batch.moving, batch.moving_inside)


def _heads(tokens: Tensor) -> Tensor:
    """``(b, n, width)`` to ``(b, heads, n, width / heads)``."""
    return tokens.unflatten(-1, (_HEADS, -1)).transpose(1, 2)


def _hidden(valid: Tensor) -> Tensor:
    """What to add to a similarity so that tokens that are not there are not looked at."""
    return (~valid).float() * _NEVER


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)
