"""The resource of datasets."""

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pnc_client.downloads import download
from pnc_client.http import Http, path_of
from pnc_client.parquet import write_parquet
from pnc_client.schemas.datasets import Dataset, Unreadable
from pnc_client.schemas.purges import Purge
from pnc_client.sources import Images, Options, SourceError, open_images
from pnc_client.sources.canonical import is_canonical
from pnc_client.uploads import Progress, Uploads

POLL_SECONDS = 0.3
_INVALID_IN_NAMES = re.compile(r"[^a-z0-9._-]+")


class Datasets:
    """The resource `/v1/datasets`."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._uploads = Uploads(http)

    def push(
        self,
        what: str | Path,
        *,
        name: str | None = None,
        classes: str | Sequence[str] | None = None,
        split: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        strict: bool = False,
        progress: Progress | None = None,
        read: Callable[[Images], object] | None = None,
    ) -> Dataset:
        """Upload images as a dataset. `read` receives the skipped files.

        Args:
            what: A folder with one folder of images per class, or of images without labels; a zip or tar archive of
                one; Parquet files; shards of a WebDataset; `.npz` or `.npy`; a folder of torchvision (MNIST, CIFAR);
                or `hf://datasets/OWNER/NAME`.
            name: Name for people; None: made from `what`.
            classes: Class names in the order of the labels, or a CSV file of old and new names; None: the source's own.
            split: `train`, `validation`, `test` or `all`; None if there is only one.
            image_column: Column of the images in Parquet; None: it is recognised.
            label_column: Column or field of the labels, or `none`; None: it is recognised.
            strict: Refuse the source if a file or row that may be an image is left out.
            progress: Called after each uploaded chunk.
            read: Called with the source when all its images are read, before they are sent.

        Raises:
            ApiError: the service refuses the file.
            SourceError: the source has no images, has several splits, or leaves an image out although `strict`.
        """
        options = Options(split, image_column, label_column, classes)
        title = name or _name(what)
        if is_canonical(what, options):
            return self._push_file(Path(what), title, None if classes is None else [*classes], progress)
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "images.parquet")
            images = open_images(what, options)
            count = write_parquet(file, ((item.label, item.raw, item.name) for item in images), images.classes)
            if read is not None:
                read(images)
            if strict and images.lost:
                raise _incomplete(what, images)
            if not count:
                raise _empty(what, images)
            return self._push_file(file, title, None, progress)

    def list(self, *, archived: bool = False) -> Iterator[Dataset]:
        """All datasets, newest first."""
        return self._http.pages(Dataset, "/v1/datasets", archived=archived)

    def get(self, dataset_id: str) -> Dataset:
        """One dataset."""
        return self._http.get(Dataset, path_of("datasets", dataset_id))

    def wait(self, dataset_id: str, progress: Progress | None = None, timeout: float = 3600.0) -> Dataset:
        """Wait until a worker has decoded every image of a dataset once.

        Args:
            dataset_id: Its id.
            progress: Called with the rows that were looked at and the total.
            timeout: Seconds.

        Raises:
            TimeoutError: the inspection has not ended within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            found = self.get(dataset_id)
            if progress is not None:
                progress(found.inspected, found.rows)
            if found.inspection != "waiting":
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{dataset_id}: expected the end of its inspection in {timeout:g} s, got {found.inspected:,} of "
                    f"{found.rows:,} images; is a worker running?"
                )
            self._http.sleep(POLL_SECONDS)

    def unreadable(self, dataset_id: str) -> Iterator[Unreadable]:
        """Images that cannot be decoded, in the order of the rows."""
        return self._http.pages(Unreadable, path_of("datasets", dataset_id, "unreadable"))

    def download(self, dataset_id: str, path: Path, *, progress: Progress | None = None) -> Path:
        """Download a dataset's Parquet file as it was uploaded, and check its digest.

        Args:
            dataset_id: Its id.
            path: File to write; a failed download leaves no file.
            progress: Called with the downloaded bytes and the total.

        Raises:
            ApiError: there is no such dataset.
            DamagedDownload: the bytes have another digest than the announced one.
        """
        found = self.get(dataset_id)
        return download(
            self._http, path_of("datasets", dataset_id, "content"), path, name=dataset_id, digest=found.digest,
            size=found.bytes, progress=progress,
        )  # fmt: skip

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

    def _push_file(self, path: Path, name: str, classes: Sequence[str] | None, progress: Progress | None) -> Dataset:
        upload = self._uploads.push(path, progress)
        return self._http.post(Dataset, "/v1/datasets", {"name": name, "upload": upload.id, "classes": classes})


def _name(what: str | Path) -> str:
    text = str(what)
    last = text.rstrip("/").rpartition("/")[2] if text.startswith("hf://") else Path(what).resolve().name
    stem = re.sub(r"(\.tar)?\.\w+\Z", "", last)
    return _INVALID_IN_NAMES.sub("-", (stem or last).lower()).strip("-._")[:63] or "dataset"


def _incomplete(what: str | Path, images: Images) -> SourceError:
    first = images.lost[0]
    return SourceError(
        f"{what}: expected images without exception, got {len(images.lost):,} that would be left out, such as "
        f"{first.name}: {first.reason}; correct them, or push without `strict`"
    )


def _empty(what: str | Path, images: Images) -> SourceError:
    first = "".join(f"; {one.name}: {one.reason}" for one in images.lost[:3])
    return SourceError(f"{what}: expected at least one image, got none{first}")
