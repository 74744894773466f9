"""Makes the LiteLLM key that Open WebUI uses, unless it is there. Runs once, in LiteLLM's own image.

The key may do what chatting needs and nothing else; all people of Open WebUI share it, and what each of them sees there is
limited by the grants that litellm-webui-sync writes.
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

LITELLM = os.environ["LITELLM_URL"]
KEY = os.environ["OPEN_WEBUI_LITELLM_KEY"]


def ask(path: str, body: dict | None = None) -> tuple[int, str]:
    request = urllib.request.Request(
        LITELLM + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {os.environ['LITELLM_MASTER_KEY']}",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.read(2000).decode(errors="replace")


if not KEY.startswith("sk-"):
    sys.exit("OPEN_WEBUI_LITELLM_KEY must begin with sk-")

code, _ = ask("/key/info?" + urllib.parse.urlencode({"key": KEY}))
if code == 200:
    print("Open WebUI's key is there")
    sys.exit()

code, problem = ask(
    "/key/generate",
    {
        "key": KEY,
        "key_alias": "openwebui_global_key",
        "user_id": "openwebui_system",
        "models": ["all-proxy-models"],
        "allowed_routes": ["llm_api_routes"],
    },
)
if code != 200:
    sys.exit(f"LiteLLM did not make Open WebUI's key: it answered {code}: {problem.replace(KEY, '…')}")
print("made Open WebUI's key")
