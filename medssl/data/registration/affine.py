"""Aligns two images by an affine transform, from coarse to fine."""

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float32, Float64

Image = Float32[np.ndarray, "i j k"]
Matrix = Float64[np.ndarray, "4 4"]
MIN_COARSE_SIDE = 8  # voxels along the shortest axis of the coarsest image
SHRINK_FACTORS = (4, 2, 1)
MAX_ITERATIONS = 60


def align_affine(fixed: Image, moving: Image) -> Matrix:
    """Finds the affine map from voxels of `fixed` to voxels of `moving` that maximises their correlation.

    The search starts from equal centres of the grids or from equal centres of mass, whichever correlates better. The
    identity is returned where no map that is found correlates better than it.
    """
    images = [sitk.GetImageFromArray(image - image.min()) for image in (fixed, moving)]
    method = _build_method(min(fixed.shape))
    identity = sitk.AffineTransform(3)
    by_mass = sitk.CenteredTransformInitializer(
        *images, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    values = {}
    try:
        for start in (identity, sitk.AffineTransform(by_mass)):
            method.SetInitialTransform(start, inPlace=False)
            values[method.MetricEvaluate(*images)] = start
        best = values[min(values)]
        method.SetInitialTransform(best, inPlace=False)
        result = method.Execute(*images)
        method.SetInitialTransform(result, inPlace=False)
        if method.MetricEvaluate(*images) < min(values):
            best = result
    except RuntimeError:  # the images hardly overlap
        best = identity
    return _read_matrix(best)


def displace(matrix: Matrix, shape: tuple[int, ...]) -> Float32[np.ndarray, "3 i j k"]:
    """Returns the displacement in voxels that a map from voxels to voxels means for each voxel of a grid."""
    index = np.indices(shape, np.float32)
    mapped = np.tensordot(matrix[:3, :3], index, 1) + matrix[:3, 3, None, None, None]
    return (mapped - index).astype(np.float32)


def _build_method(shortest_side: int) -> sitk.ImageRegistrationMethod:
    factors = [factor for factor in SHRINK_FACTORS if factor == 1 or shortest_side // factor >= MIN_COARSE_SIDE]
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, MAX_ITERATIONS, 0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(factors)
    method.SetSmoothingSigmasPerLevel([factor / 2 if factor > 1 else 0 for factor in factors])
    return method


def _read_matrix(transform: sitk.Transform) -> Matrix:
    """Returns a transform as a matrix on array indices, whose axes are those of SimpleITK in reverse order."""
    corners = [transform.TransformPoint(point) for point in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    origin, *ends = [np.array(corner)[::-1] for corner in corners]
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([end - origin for end in ends[::-1]], axis=1)
    matrix[:3, 3] = origin
    return matrix
