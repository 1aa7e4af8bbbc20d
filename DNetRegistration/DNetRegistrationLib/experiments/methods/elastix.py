"""elastix with the settings of its documentation: rigid, from the centre of gravity or from a start near the truth."""

from __future__ import annotations

import itk
import numpy as np

from ...imaging.volume import Volume
from .answer import Answer, centered, float_voxels
from .near import NearScans

# itk loads a module at the first use of something in it, which takes seconds. That time does not count.
itk.ParameterObject, itk.ElastixRegistrationMethod, itk.image_from_array  # noqa: B018

# More than the default 256: the parameter file that comes with itk-elastix names 1000 to 2000 for robustness.
ITERATIONS = "1000"
# The manual asks for this many (section 5.5.3), instead of 2048.
SAMPLES = "3000"
# From a start near the truth: resolutions, and iterations of each, over all voxels.
NEAR_RESOLUTIONS, NEAR_ITERATIONS = 2, "250"
METRICS = {"information": "AdvancedMattesMutualInformation", "correlation": "AdvancedNormalizedCorrelation"}


def align(fixed: Volume, moving: Volume, threads: int) -> Answer:
    """Rigid registration by elastix' default parameter map "rigid", begun at the centre of gravity.

    That map is Mattes mutual information, adaptive stochastic gradient descent and a pyramid of four resolutions.
    Automatic initialization by "CenterOfGravity" puts centre of mass on centre of mass, without a rotation.

    Source: S. Klein, M. Staring, elastix: the manual, chapter Tutorial (components, number of samples, histogram
    bins); parameters_Rigid.txt and the notebooks in the examples of InsightSoftwareConsortium/ITKElastix.
    """
    parameters = itk.ParameterObject.New()
    rigid = parameters.GetDefaultParameterMap("rigid", 4)
    rigid["AutomaticTransformInitialization"] = ["true"]
    rigid["AutomaticTransformInitializationMethod"] = ["CenterOfGravity"]
    rigid["MaximumNumberOfIterations"] = [ITERATIONS]
    rigid["NumberOfSpatialSamples"] = [SAMPLES]
    # Only the transform is wanted, so that elastix need not resample.
    rigid["WriteResultImage"] = ["false"]
    return Answer(_registered(fixed, moving, None, parameters, rigid, threads))


def refine_start(fixed: Volume, moving: Volume, threads: int, start: np.ndarray, metric: str, where: str) -> Answer:
    """Rigid registration from a ``(4, 4)`` start, by one of `METRICS`, in one of `near.MASKS` or "shrunk".

    The default parameter map "rigid" with its adaptive optimizer, but every voxel of the mask is a sample (sampler
    "Full"), so that nothing is random, and two resolutions suffice. By default elastix erodes a mask by what it smooths
    the images at each resolution. That is "shrunk", of the dilated mask; the other masks stay as they are given.

    Source: as for `align`; for masks the manual's section 5.4.
    """
    near = NearScans.of(fixed, moving, start, "dilated" if where == "shrunk" else where)
    parameters = itk.ParameterObject.New()
    rigid = parameters.GetDefaultParameterMap("rigid", NEAR_RESOLUTIONS)
    rigid["AutomaticTransformInitialization"] = ["false"]
    rigid["Metric"] = [METRICS[metric]]
    rigid["ImageSampler"] = ["Full"]
    rigid["NewSamplesEveryIteration"] = ["false"]
    rigid["MaximumNumberOfIterations"] = [NEAR_ITERATIONS]
    rigid["ErodeFixedMask"] = ["true" if where == "shrunk" else "false"]
    rigid["WriteResultImage"] = ["false"]
    return Answer(near.answer(_registered(near.fixed, near.moving, near.mask(near.fixed), parameters, rigid, threads)))


def _registered(fixed: Volume, moving: Volume, mask: np.ndarray | None, parameters, rigid, threads: int) -> np.ndarray:
    parameters.AddParameterMap(rigid)
    method = itk.ElastixRegistrationMethod.New(itk_image(fixed), itk_image(moving))
    if mask is not None:
        method.SetFixedMask(_with_geometry(itk.image_from_array(mask.astype(np.uint8)), fixed))
    method.SetParameterObject(parameters)
    method.SetNumberOfThreads(threads)
    method.SetLogToConsole(False)
    method.UpdateLargestPossibleRegion()
    return matrix_of(method.GetTransformParameterObject().GetParameterMap(0))


def itk_image(scan: Volume):
    """The scan as an ITK image of float32."""
    return _with_geometry(itk.image_from_array(np.ascontiguousarray(float_voxels(scan))), scan)


def _with_geometry(image, scan: Volume):
    image.SetSpacing(scan.spacing.tolist())
    image.SetOrigin(scan.origin.tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(scan.direction)))
    return image


def matrix_of(parameters) -> np.ndarray:
    """``(4, 4)`` of the parameter map of an EulerTransform: angles about x, y, z, then a translation, about a centre.

    As in ITK the rotations are applied in the order y, x, z unless the map says "ComputeZYX".
    """
    x, y, z, *translation = (float(value) for value in parameters["TransformParameters"])
    transform = itk.Euler3DTransform[itk.D].New()
    transform.SetComputeZYX("ComputeZYX" in parameters and parameters["ComputeZYX"][0] == "true")
    transform.SetRotation(x, y, z)
    rotation = itk.array_from_matrix(transform.GetMatrix())
    return centered(rotation, translation, [float(value) for value in parameters["CenterOfRotationPoint"]])
