"""Errors of the library.

    PncError                      everything raised on purpose
    ├── ConfigError               a job's parameters make no sense (also a ValueError)
    │   ├── UnknownClass          a network has no class of this name
    │   └── AmbiguousClass        several classes of a network have this name
    ├── NetworkError              a network cannot be built, traced or used
    │   ├── UnknownArchitecture   the name is not on the list
    │   └── WeightsMismatch       the weights do not fit the architecture
    ├── DataError                 images or labels cannot be used
    ├── PositionError             no position, or not one of this network's
    ├── TensorFileError           a file is not a whole, harmless safetensors file
    ├── BundleError               a file is not a whole, well-formed bundle
    ├── SignatureError            a signature is damaged, by another key, or of other bytes
    ├── MismatchError             two things do not belong together
    │   ├── TargetMismatch        a bundle was made for another target
    │   └── SourceMismatch        a thin bundle came without its source, or with another one
    └── Cancelled                 the caller asked to stop

Every message says what was expected, what was got and what to do. `code` is
stable and machine-readable; the HTTP API repeats it.
"""

import errno
import os


class PncError(Exception):
    """Base of all errors the library raises on purpose."""

    code = "pnc_error"


class ConfigError(PncError, ValueError):
    """A parameter of a job is out of its range."""

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
    """The architecture's name is not on the allow-list."""

    code = "unknown_architecture"


class WeightsMismatch(NetworkError):
    """The weights do not fit the architecture."""

    code = "weights_mismatch"


class DataError(PncError):
    """Images or labels cannot be used for this job."""

    code = "invalid_data"


class PositionError(PncError):
    """A position does not exist, or none is usable."""

    code = "invalid_position"


class TensorFileError(PncError):
    """A file is not a whole, harmless safetensors file."""

    code = "invalid_safetensors"


class BundleError(PncError):
    """A file is not a whole, well-formed bundle."""

    code = "invalid_bundle"


class SignatureError(PncError):
    """A signature is damaged, by another key, or of other bytes."""

    code = "invalid_signature"


class MismatchError(PncError):
    """Two things do not belong together."""

    code = "mismatch"


class TargetMismatch(MismatchError):
    """A bundle was made for another target."""

    code = "target_mismatch"


class SourceMismatch(MismatchError):
    """A thin bundle came without its source, or with another one."""

    code = "source_mismatch"


class Cancelled(PncError):
    """The caller's cancel callback asked to stop."""

    code = "cancelled"


_NO_MEMORY = ("can't allocate memory", os.strerror(errno.ENOMEM).lower())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a device: nothing need be wrong with what was worked on.

    Torch's allocator for processors has no error of its own, and the kernel's refusal may come as any error.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error).lower() for words in _NO_MEMORY)
