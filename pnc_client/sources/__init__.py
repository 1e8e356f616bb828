"""Images as people keep them, read one by one: folders, archives, tables, arrays and data sets of the Hub."""

from pnc_client.sources.found import Images, Item, Skipped, SourceError
from pnc_client.sources.opening import Options, open_images

__all__ = ["Images", "Item", "Options", "Skipped", "SourceError", "open_images"]
