"""Find the point spread function of a shaken camera, of any form: coarse to fine, by edges."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from napari_restore.physics.psf import centered, fast_length
from napari_restore.runtime import check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Kernel = NDArray[np.float32]

#: Ratio of one level of resolution to the next, and the support at the coarsest.
_RATIO, _COARSEST = math.sqrt(0.5), 5
#: Rounds of sharp edges and kernel at each level, and by how much edges are let in from one to
#: the next.
_ROUNDS, _MORE_EDGES = 5, 1.1
#: How the coupling of gradients and image grows while edges are found: first and last, and factor.
_COUPLING_GROWS, _LAST_COUPLING = 4.0, 1e5
#: Ridge of the least squares, for an image of 256 x 256 pixels with samples in [0, 1].
_RIDGE = 2.0
#: Edges that the kernel is found from, in each of four directions, for each pixel of its side:
#: of edges that are guessed, and of an image that a network restored.
_EDGES, _MORE = 40, 100
#: Gradient steps to a kernel.
_STEPS = 60
#: Parts of a kernel with less of the light are dust, and samples below this share of the peak.
_DUST, _FAINT = 0.1, 0.05
#: Largest side in pixels that a kernel grows to when it is refined.
_LARGEST = 35
#: Standard deviation to which images are brought, so that the cost of an edge means the same.
_CONTRAST = 0.22


def search(image: NDArray[np.float32], support: int, sparsity: float) -> Kernel:
    """Find a kernel of a size.

    Parameters
    ----------
    image : ndarray
        (H, W), about [0, 1], proportional to light.
    support : int
        Largest side of the kernel, odd.
    sparsity : float
        What a sharp edge costs, λ: the more, the fewer edges are left.

    Returns
    -------
    ndarray
        (support, support), float32, with sum 1 and their center of mass in the middle.

    Notes
    -----
    Sharp edges by the number of gradients, as in Xu, Zheng and Jia, "Unnatural L0 Sparse
    Representation for Natural Image Deblurring", CVPR 2013, and Pan et al., "Deblurring Text Images
    via L0-Regularized Intensity and Gradient Prior", CVPR 2014. The kernel is that which brings the
    gradients of these edges to those of the image with least squares.
    """
    gain = _CONTRAST / max(float(image.std()), 1e-6)
    normal = (image - image.mean()) * gain
    blurred = torch.from_numpy(np.ascontiguousarray(normal, np.float32))[None, None]
    levels = max(0, math.floor(math.log(_COARSEST / support) / math.log(_RATIO)))
    kernel = torch.zeros(1, 3, 3)
    kernel[:, 1, 1] = 1
    for level in range(levels, -1, -1):
        scale = _RATIO**level
        side = max(3, 2 * round((support * scale - 1) / 2) + 1)
        kernel = _enlarged(kernel, side)
        seen = _shrunk(blurred, scale)[0]
        problem = _Level(seen, side)
        for _ in range(_ROUNDS):
            check()
            edges = problem.sharp_edges(kernel, sparsity)
            kernel = _clean(problem.kernels(edges, kernel, _EDGES))
            sparsity = max(sparsity / _MORE_EDGES, 1e-4)
    return _finished(kernel.numpy()[0], support)


def refined(image: NDArray[np.float32], restored: NDArray[np.float32], kernel: Kernel) -> Kernel:
    """Find a kernel again, from the edges of an image that was restored with a first one.

    Parameters
    ----------
    image, restored : ndarray
        (H, W), about [0, 1], proportional to light.
    kernel : ndarray
        (k, k); what is found may be a third larger.

    Returns
    -------
    ndarray
        As from `search`.
    """
    side = kernel.shape[0]
    side = max(side, min(_LARGEST, side + 2 * (side // 6)))
    gain = _CONTRAST / max(float(image.std()), 1e-6)
    both = np.stack([image, restored]).astype(np.float32)
    blurred, sharp = torch.from_numpy((both - image.mean()) * gain)[:, None]
    level = _Level(blurred, side)
    start = torch.from_numpy(_of_size(kernel, side))[None]
    found = _clean(level.kernels(_periodic(sharp, level.size), start, _MORE))
    return _finished(found.numpy()[0], side)


def _finished(kernel: Kernel, side: int) -> Kernel:
    faint = np.where(kernel < _FAINT * kernel.max(), 0, kernel)
    return _of_size(centered(faint), side)


def _shrunk(image: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return image
    size = [max(8, round(length * scale)) for length in image.shape[-2:]]
    return F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)


def _enlarged(kernels: Tensor, side: int) -> Tensor:
    if kernels.shape[-1] == side:
        return kernels
    if kernels.sum((1, 2)).allclose(kernels[:, 1, 1]) and kernels.shape[-1] == 3:
        out = torch.zeros(len(kernels), side, side)
        out[:, side // 2, side // 2] = 1
        return out
    large = F.interpolate(kernels[:, None], (side, side), mode="bicubic", align_corners=False)[:, 0]
    return _clean(large)


def _clean(kernels: Tensor) -> Tensor:
    """Without negative samples and dust; sum 1, its center of mass at the middle pixel."""
    out = []
    for kernel in kernels.clamp(min=0).numpy():
        kernel = kernel / max(kernel.sum(), 1e-12)
        kernel = np.where(kernel < _FAINT * kernel.max(), 0, kernel)
        labels, count = ndimage.label(kernel, np.ones((3, 3)))
        if count > 1:
            light = ndimage.sum_labels(kernel, labels, np.arange(count + 1))
            light[0] = 0
            keep = light >= min(_DUST * light.sum(), light.max())
            kernel = np.where(keep[labels], kernel, 0)
        middle = (kernel.shape[0] - 1) / 2
        offset = np.round(middle - np.array(ndimage.center_of_mass(kernel))).astype(int)
        kernel = _moved(kernel, offset)
        out.append(kernel / max(kernel.sum(), 1e-12))
    return torch.from_numpy(np.stack(out).astype(np.float32))


def _moved(kernel: NDArray[np.float32], offset: NDArray[np.int_]) -> NDArray[np.float32]:
    """Move by whole pixels; what leaves is lost."""
    if not offset.any():
        return kernel
    return np.asarray(ndimage.shift(kernel, offset, order=0, mode="constant"))


def _of_size(kernel: Kernel, side: int) -> Kernel:
    """Crop or pad about the middle."""
    have = kernel.shape[0]
    if have > side:
        cut = (have - side) // 2
        kernel = kernel[cut : cut + side, cut : cut + side]
    elif have < side:
        kernel = np.pad(kernel, (side - have) // 2)
    normal: Kernel = (kernel / kernel.sum()).astype(np.float32)
    return normal


class _Level:
    """The search at one resolution.

    Parameters
    ----------
    blurred : Tensor
        (1, H, W).
    side : int
        Of the kernels.
    """

    def __init__(self, blurred: Tensor, side: int) -> None:
        self._side = side
        height, width = blurred.shape[-2:]
        self._inner = height, width
        size = [fast_length(length + side) for length in (height, width)]
        self.size = size
        self._image = _periodic(blurred, size)
        self._spectrum = torch.fft.rfft2(self._image)
        fy = torch.fft.fftfreq(size[0])[:, None]
        fx = torch.fft.rfftfreq(size[1])[None]
        # Forward differences.
        self._dy = torch.exp(2j * torch.pi * fy) - 1
        self._dx = torch.exp(2j * torch.pi * fx) - 1
        self._gradient = self._dy.abs().square() + self._dx.abs().square()
        self._weight = _taper(height, size[0], side)[:, None] * _taper(width, size[1], side)
        seen = _gradients(self._image)
        self._seen = [torch.fft.rfft2(part * self._weight) for part in seen]
        self._ridge = _RIDGE * height * width / 256**2

    def sharp_edges(self, kernels: Tensor, cost: float) -> Tensor:
        """Images (N, H, W) of few edges that explain the blurred one."""
        transfer = torch.fft.rfft2(_wrapped(kernels, self.size))
        data, power = transfer.conj() * self._spectrum, transfer.abs().square()
        edges = self._image.expand(len(kernels), -1, -1)
        coupling = 2 * cost
        while coupling < _LAST_COUPLING:
            gy, gx = _gradients(edges)
            small = gy.square() + gx.square() < cost / coupling
            gy = gy.masked_fill(small, 0)
            gx = gx.masked_fill(small, 0)
            back = torch.fft.rfft2(_divergence(gy, gx))
            edges = torch.fft.irfft2(
                (data + coupling * back) / (power + coupling * self._gradient), s=self.size
            )
            coupling = coupling * _COUPLING_GROWS
        return edges

    def kernels(self, edges: Tensor, start: Tensor, share: int) -> Tensor:
        """Find kernels (N, side, side) from sharp edges by least squares on gradients.

        ``share`` edges are kept in each of four directions, for each pixel of the side.
        """
        gradients = self._strong(*_gradients(edges), share * self._side)
        spectra = [torch.fft.rfft2(part * self._weight) for part in gradients]
        own = torch.stack([s.abs().square() for s in spectra]).sum(0)
        both = sum(s.conj() * seen for s, seen in zip(spectra, self._seen, strict=True))
        lags = torch.fft.irfft2(own, s=self.size)
        right = torch.fft.irfft2(both, s=self.size)
        half = self._side // 2
        right = right.roll((half, half), (-2, -1))[:, : self._side, : self._side]
        return least_squares(lags, right, self._ridge, start)

    def _strong(self, gy: Tensor, gx: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Keep the strongest edges alone, so many in each direction."""
        size = gy.square() + gx.square()
        steep = gy.abs() > gx.abs()
        same = gy * gx > 0
        keep = torch.zeros_like(steep)
        for first in (steep, ~steep):
            for second in (same, ~same):
                group = first & second
                flat = torch.where(group, size, torch.zeros_like(size)).flatten(1)
                count_here = min(count, flat.shape[1])
                least = flat.topk(count_here, 1).values[:, -1].view(-1, 1, 1)
                keep |= group & (size >= least.clamp(min=1e-8))
        return gy * keep, gx * keep


def least_squares(lags: Tensor, right: Tensor, ridge: float, start: Tensor) -> Tensor:
    """Find kernels without negative samples inside their support, by accelerated gradient steps.

    Light adds up, so a kernel has no negative samples: of several hundred unknowns that many noisy
    edges decide, this decides half at once.

    Parameters
    ----------
    lags : Tensor
        (N, H, W), autocorrelation of the edges, lag 0 first.
    right : Tensor
        (N, k, k), correlation of edges and image.
    ridge : float
    start : Tensor
        (N, k, k), where to begin.

    Returns
    -------
    Tensor
        (N, k, k).

    Notes
    -----
    Beck and Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm", SIAM J. Imaging Sciences
    2009, with the projection in place of the threshold.
    """
    side = right.shape[-1]
    size = [fast_length(3 * side)] * 2
    around = lags.roll((side - 1, side - 1), (-2, -1))[:, : 2 * side - 1, : 2 * side - 1]
    transfer = torch.fft.rfft2(around, s=size)
    # No eigenvalue of the convolution inside the support is above the largest of its transfer.
    steepest = transfer.abs().amax((1, 2), keepdim=True) + ridge
    kernels, ahead, pace = start, start, 1.0
    for _ in range(_STEPS):
        full = torch.fft.irfft2(torch.fft.rfft2(ahead, s=size) * transfer, s=size)
        inside = full[:, side - 1 : 2 * side - 1, side - 1 : 2 * side - 1]
        found = (ahead - (inside + ridge * ahead - right) / steepest).clamp(min=0)
        faster = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        ahead = found + (pace - 1) / faster * (found - kernels)
        kernels, pace = found, faster
    return kernels


def _gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    return image.roll(-1, -2) - image, image.roll(-1, -1) - image


def _divergence(gy: Tensor, gx: Tensor) -> Tensor:
    """Adjoint of `_gradients`."""
    return gy.roll(1, -2) - gy + gx.roll(1, -1) - gx


def _wrapped(kernels: Tensor, size: Sequence[int]) -> Tensor:
    side = kernels.shape[-1]
    frame = kernels.new_zeros(len(kernels), *size)
    frame[:, :side, :side] = kernels
    return frame.roll((-(side // 2), -(side // 2)), (-2, -1))


def _periodic(image: Tensor, size: Sequence[int]) -> Tensor:
    """Go on beyond the lower and right border so that the image repeats without a step."""
    out = image
    for axis in (-2, -1):
        have, want = out.shape[axis], size[axis]
        out = out.transpose(axis, -1)
        beyond = want - have
        # What is reflected at one border gives way to what is reflected at the other.
        share = torch.linspace(0, 1, beyond + 2)[1:-1]
        share = share.square() * (3 - 2 * share)
        there = out.flip(-1)
        left, right = there[..., :beyond], there[..., -beyond:]
        out = torch.cat([out, left * (1 - share) + right * share], -1).transpose(axis, -1)
    return out.contiguous()


def _taper(length: int, total: int, side: int) -> Tensor:
    """1 inside, falling to 0 toward the border over half a kernel, 0 beyond it."""
    place = torch.arange(total, dtype=torch.float32)
    depth = torch.minimum(place + 1, length - 1 - place)
    return (depth / (side // 2 + 1)).clamp(0, 1)
