"""Parquet files that the service reads as they are; they are sent unchanged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pnc_client.sources.columns import LABEL_NAMES, features_of
from pnc_client.sources.opening import Options


def is_canonical(what: str | Path, options: Options) -> bool:
    """Whether a source is one Parquet file with images in `image.bytes` and named whole numbers in `label`.

    Without pyarrow every Parquet file counts as such a file if no option asks for a change: the service then decides.

    Args:
        what: The source.
        options: Any choice other than a list of classes asks for a change.
    """
    path = Path(what)
    changed = options.split or options.image_column or options.label_column or isinstance(options.classes, str)
    if changed or path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        return _is_canonical(path, options.classes)
    except ModuleNotFoundError:
        return True


def _is_canonical(path: Path, classes: Sequence[str] | None) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        if schema.names.count("image") != 1 or schema.names.count("label") > 1:
            return False
        image = schema.field("image").type
        if not pa.types.is_struct(image) or image.get_field_index("bytes") < 0 or file.metadata.num_rows == 0:
            return False
        if "label" not in schema.names:
            return not {*LABEL_NAMES} & {*schema.names}
        names: Any = classes or (features_of(schema).get("label") or {}).get("names")
        if not isinstance(names, list | tuple) or not pa.types.is_integer(schema.field("label").type):
            return False
        for batch in file.iter_batches(columns=["label"], batch_size=65_536):
            found: Any = pc.min_max(batch.column(0)).as_py()
            if batch.column(0).null_count or found["min"] < 0 or found["max"] >= len(names):
                return False
    except (pa.ArrowException, OSError, ValueError, AttributeError):
        return True  # the service names the damage, from a process that may crash
    return True
