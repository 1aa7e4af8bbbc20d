"""What `DNetRegistrationLib` exports, for type checkers and editors; `__init__.py` loads it when it is used."""

from .bone.threshold import find_bone_scale as find_bone_scale
from .cartilage.measure import measure_cartilage as measure_cartilage
from .cartilage.result import CartilageMeasurement as CartilageMeasurement
from .core.errors import DNetError as DNetError
from .core.errors import ScanError as ScanError
from .geometry.transform_files import read_transform as read_transform
from .geometry.transform_files import write_transform as write_transform
from .imaging.masks import read_mask as read_mask
from .imaging.volume import Volume as Volume
from .imaging.volume import read_volume as read_volume
from .imaging.volume import write_volume as write_volume
from .networks.weights import available_weights as available_weights
from .networks.weights import load_weights as load_weights
from .outputs.report import read_report as read_report
from .outputs.write import write_outputs as write_outputs
from .registration.align import align as align
from .registration.result import Alignment as Alignment
from .registration.result import AlignmentCancelled as AlignmentCancelled
from .synthesis.pairs import SyntheticPair as SyntheticPair
from .synthesis.pairs import make_pair as make_pair
from .synthesis.pairs import target_registration_error as target_registration_error
from .training.session import TrainingOptions as TrainingOptions
from .training.session import train as train
from .version import __version__ as __version__
