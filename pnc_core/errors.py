"""Errors of the library.

    PncError                      base class
    ├── ConfigError               a job's parameter is invalid (also a ValueError)
    │   ├── UnknownClass          a network has no class of this name
    │   └── AmbiguousClass        several classes of a network have this name
    ├── NetworkError              a network cannot be built, traced or used
    │   ├── UnknownArchitecture   the architecture's name is unknown
    │   ├── WeightsMismatch       the weights do not fit the architecture
    │   └── NearChance            the network guesses on the images
    ├── DataError                 images or labels cannot be used
    ├── WorseThanNone             a module is worse than an answer that needs no module
    ├── PositionError             a position does not exist or cannot be used
    ├── TensorFileError           a file is not a valid safetensors file within the limits
    ├── BundleError               a file is not a valid bundle
    ├── CompositionError          a file is not a valid composition
    ├── SignatureError            a signature is damaged, by another key, or of other bytes
    ├── MismatchError             two objects do not belong together
    │   ├── TargetMismatch        a bundle was made for another target
    │   └── SourceMismatch        a thin bundle is given without its source, or with another source
    └── Cancelled                 the caller cancelled the job

Every message names the expected value, the actual value and a remedy. `code` is
stable and machine-readable; the HTTP API repeats it.
"""

import errno
import os


class PncError(Exception):
    """Base class of the library's errors."""

    code = "pnc_error"


class ConfigError(PncError, ValueError):
    """A parameter is invalid."""

    code = "invalid_config"


class UnknownClass(ConfigError):
    """A network has no class of this name."""

    code = "unknown_class"


class AmbiguousClass(ConfigError):
    """Several classes of a network have this name."""

    code = "ambiguous_class"


class NetworkError(PncError):
    """A network cannot be built, traced or used."""

    code = "invalid_network"


class UnknownArchitecture(NetworkError):
    """The architecture's name is unknown."""

    code = "unknown_architecture"


class WeightsMismatch(NetworkError):
    """The weights do not fit the architecture."""

    code = "weights_mismatch"


class NearChance(NetworkError):
    """The network guesses on the images; its registration is probably wrong."""

    code = "near_chance"


class DataError(PncError):
    """Images or labels cannot be used for this job."""

    code = "invalid_data"


class WorseThanNone(PncError):
    """A module is worse than an answer that needs no module."""

    code = "worse_than_none"


class PositionError(PncError):
    """A position does not exist or cannot be used."""

    code = "invalid_position"


class TensorFileError(PncError):
    """A file is not a valid safetensors file within the limits."""

    code = "invalid_safetensors"


class BundleError(PncError):
    """A file is not a valid bundle."""

    code = "invalid_bundle"


class CompositionError(PncError):
    """A file is not a valid composition, or a composition has no part that was asked for."""

    code = "invalid_composition"


class SignatureError(PncError):
    """A signature is damaged, by another key, or of other bytes."""

    code = "invalid_signature"


class MismatchError(PncError):
    """Two objects, such as a bundle and a network, do not belong together."""

    code = "mismatch"


class TargetMismatch(MismatchError):
    """A bundle was made for another target."""

    code = "target_mismatch"


class SourceMismatch(MismatchError):
    """A thin bundle is given without its source, or with another source."""

    code = "source_mismatch"


class Cancelled(PncError):
    """The caller's callback `cancelled` returned True."""

    code = "cancelled"


_NO_MEMORY = ("can't allocate memory", os.strerror(errno.ENOMEM).lower())


def is_out_of_memory(error: BaseException) -> bool:
    """Does this error mean that the machine or a device ran out of memory?

    Then the input may be valid. On a CPU torch raises a plain RuntimeError, and the operating system may raise an
    OSError, so the message is checked too.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error).lower() for words in _NO_MEMORY)
