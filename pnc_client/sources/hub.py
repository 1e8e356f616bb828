"""Data sets of the Hugging Face Hub, `hf://datasets/OWNER/NAME[@REVISION][/FOLDER]`, from the cache or the Hub.

A token comes only from `HF_TOKEN` or the login of huggingface_hub. `HF_HUB_OFFLINE=1` reads the cache alone.
"""

import re
from pathlib import Path

from pnc_client.sources.found import SourceError, is_image_name
from pnc_client.sources.trees import TARS

PREFIX = "hf://datasets/"
_PLACE = re.compile(
    r"hf://datasets/(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*?))?(?P<folder>/.+)?\Z"
)
_CONVERTED = "refs/convert/parquet"
"""The branch on which the Hub keeps Parquet files of data sets of other formats."""
_ENDS = (".parquet", ".zip", ".npz", *TARS)


def fetched(text: str) -> Path:
    """Fetch a data set's files, or find them in the cache; returns their folder.

    Raises:
        SourceError: the text names no data set, it has no files of images, or it is neither reachable nor in the cache.
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    import huggingface_hub
    from huggingface_hub import errors

    found = _PLACE.match(text)
    if found is None:
        raise SourceError(f"expected hf://datasets/OWNER/NAME[@REVISION][/FOLDER], got {text!r:.200}")
    name, folder = found["name"], (found["folder"] or "").strip("/")
    revisions = [found["revision"]] if found["revision"] else [None, _CONVERTED]
    try:
        for revision in revisions:
            path = Path(
                huggingface_hub.snapshot_download(
                    name, repo_type="dataset", revision=revision, allow_patterns=_patterns(folder)
                )
            )
            if any(_is_of_images(file) for file in (path / folder).rglob("*")):
                return path / folder
    except errors.LocalEntryNotFoundError:
        raise SourceError(
            f"{text}: expected the data set in the cache or at the Hub, got neither; connect, or fill the cache first"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise SourceError(
            f"{text}: expected a data set and revision that can be read, got none; check the name, or set HF_TOKEN for "
            "a private one"
        ) from None
    except (errors.HfHubHTTPError, errors.HFValidationError) as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise SourceError(f"{text}: expected the files of a data set, got: {said:.200}; try again") from None
    raise SourceError(f"{text}: expected Parquet files, archives or images, got none; name a folder that has some")


def _patterns(folder: str) -> list[str]:
    """Everything but code and weights, so that nothing that could run is fetched."""
    start = f"{folder}/" if folder else ""
    ends = ("parquet", "zip", "tar*", "tgz", "npz", "csv", "jsonl", "[jJ][pP]*[gG]", "png", "PNG", "webp", "bmp", "gif")
    return [pattern for end in (*ends, "tif*", "ppm", "pgm", "JPEG") for pattern in (f"{start}*.{end}",)]


def _is_of_images(file: Path) -> bool:
    return file.is_file() and (file.name.lower().endswith(_ENDS) or is_image_name(file.name))
