"""What the site needs beyond its pages: the service's OpenAPI document, made from the code at hand."""

import json
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from app.main import create_app
from app.settings import Settings


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the document to the site; nothing is written beside the sources."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder), pages=False))
        document = app.openapi()
        app.state.zoo.close()
    files.append(File.generated(config, "reference/openapi.json", content=json.dumps(document)))
    return files
