"""The resource of datasets."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pnc_client.http import Http, path_of
from pnc_client.parquet import folder_rows, write_parquet
from pnc_client.schemas.datasets import Dataset
from pnc_client.schemas.purges import Purge
from pnc_client.uploads import Progress, Uploads

_INVALID_IN_NAMES = re.compile(r"[^a-z0-9._-]+")


class Datasets:
    """The resource `/v1/datasets`."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._uploads = Uploads(http)

    def push(
        self,
        path: Path,
        *,
        name: str | None = None,
        classes: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """Upload a Parquet file or a directory of images as a dataset.

        Args:
            path: A Parquet file, a directory with one directory of images per class, or a directory of images without
                labels.
            name: Name for people; None: made from the path.
            classes: Class names in the order of the labels; None: the names in the file.
            progress: Called after each uploaded chunk.

        Raises:
            ApiError: the service refuses the file.
            ValueError: the directory holds no images.
        """
        if path.is_dir():
            return self._push_folder(path, name or _name(path), progress)
        upload = self._uploads.push(path, progress)
        body = {"name": name or _name(path), "upload": upload.id, "classes": None if classes is None else list(classes)}
        return self._http.post(Dataset, "/v1/datasets", body)

    def list(self, *, archived: bool = False) -> Iterator[Dataset]:
        """All datasets, newest first."""
        return self._http.pages(Dataset, "/v1/datasets", archived=archived)

    def get(self, dataset_id: str) -> Dataset:
        """One dataset."""
        return self._http.get(Dataset, path_of("datasets", dataset_id))

    def archive(self, dataset_id: str) -> None:
        """Archive a dataset."""
        self._http.delete(path_of("datasets", dataset_id))

    def change(self, dataset_id: str, *, archived: bool) -> Dataset:
        """Archive or restore a dataset."""
        return self._http.patch(Dataset, path_of("datasets", dataset_id), {"archived": archived})

    def purge(self, dataset_id: str, *, dry_run: bool = False) -> Purge:
        """Delete an archived dataset permanently; a dry run only returns the plan.

        Raises:
            ApiError: other resources use the dataset (`in_use`); `errors` lists them.
        """
        return self._http.purge(path_of("datasets", dataset_id), dry_run=dry_run)

    def _push_folder(self, root: Path, name: str, progress: Progress | None) -> Dataset:
        classes, rows = folder_rows(root)
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "images.parquet")
            write_parquet(file, rows, classes)
            return self.push(file, name=name, progress=progress)


def _name(path: Path) -> str:
    return _INVALID_IN_NAMES.sub("-", path.resolve().stem.lower()).strip("-._")[:63] or "dataset"
