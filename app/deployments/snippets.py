"""Requests to one deployment that can be copied: curl, Python, tritonclient and JavaScript."""

from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from markupsafe import Markup

from app.web.html import copy_button


def snippets(base: str, name: str, input_size: Sequence[int], *, with_key: bool) -> dict[str, str]:
    """Programs by the name of their language; each classifies one image.

    Args:
        base: Address of the service, as the visitor's browser has it, without a slash at the end.
        name: The deployment.
        input_size: Channels, height and width of the target's images.
        with_key: Whether the service requires keys.
    """
    path = f"{base}/v1/deployments/{quote(name)}/predict"
    channels, height, width = input_size
    host = urlsplit(base).netloc
    key = "$PNC_API_KEY"
    curl = f" \\\n  -H 'Authorization: Bearer '\"{key}\"" if with_key else ""
    python_key = ', key=os.environ["PNC_API_KEY"]' if with_key else ""
    imports = "import os\n\n" if with_key else ""
    triton_key = (
        '\nheaders = {"Authorization": "Bearer " + os.environ["PNC_API_KEY"]}' if with_key else "\nheaders = {}"
    )
    script_key = ', Authorization: "Bearer " + key' if with_key else ""
    secure = ", ssl=True" if base.startswith("https:") else ""
    return {
        "curl": f"curl --data-binary @image.png -H 'Content-Type: application/octet-stream'{curl} \\\n  {path}",
        "Python": (
            f"{imports}from pathlib import Path\n\nfrom pnc_client import Client\n\n"
            f'with Client("{base}"{python_key}) as client:\n'
            f'    answer = client.deployments.predict("{name}", Path("image.png").read_bytes())\n'
            "    print(answer.classes[0].name)"
        ),
        "tritonclient": (
            f"{imports}import numpy as np\nimport tritonclient.http as triton\n{triton_key}\n"
            f'client = triton.InferenceServerClient("{host}"{secure})\n'
            f"images = np.zeros((1, {channels}, {height}, {width}), np.uint8)  # N, channels, height, width\n"
            'tensor = triton.InferInput("images", list(images.shape), "UINT8")\n'
            "tensor.set_data_from_numpy(images)\n"
            'wanted = [triton.InferRequestedOutput("logits")]\n'
            f'answer = client.infer("{name}", [tensor], outputs=wanted, headers=headers)\n'
            'print(answer.as_numpy("logits"), answer.get_response()["parameters"]["classes"])'
        ),
        "JavaScript": (
            f"const answer = await fetch({path!r}, {{\n"
            '  method: "POST",\n'
            f'  headers: {{"Content-Type": "application/octet-stream"{script_key}}},\n'
            "  body: image,  // a File or a Blob\n"
            "});\nconsole.log(await answer.json());"
        ),
    }


def shown(text: str, language: str) -> Markup:
    """A program with a button that copies it."""
    return Markup('<div class="snippet"><pre tabindex="0"><code>{}</code></pre>{}</div>').format(
        text, copy_button(text, f"the {language} request", "Copy")
    )
