"""Print the names of all architectures as JSON: `python -m workers.networks.architecture_names`.

The API runs this module as a child process, because the names need torch and the API does without it.
"""

import json
import sys

from pnc_core.graph.architectures import architectures, timm_architectures


def main() -> None:
    """Entry of the child process."""
    sys.stdout.write(json.dumps([*architectures(), *timm_architectures()]))


if __name__ == "__main__":
    main()
