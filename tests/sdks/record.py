"""Writes down what a story's SDK sends: `cloche run -- PYTHON tests/sdks/record.py STORY TRACE`.

The trace is what `test_traces.py` sends again where the SDK is not installed. Requests to S3 are
kept as keys only; the account, the role and what repeats (looks at a status) are made general.
"""

import json
import re
import runpy
import sys
from pathlib import Path

import botocore.endpoint

ACCOUNT = "123456789012"
KEPT = ("X-Amz-Target", "Content-Type", "Accept")
sent = []
send = botocore.endpoint.Endpoint._send


def recorded(self, request):
    """Note a request, and send it."""
    service = self._endpoint_prefix
    headers = {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in request.headers.items()
        if name.title() in KEPT
    }
    body = request.body
    text = "" if body is None or service == "s3" else body
    sent.append(
        {
            "service": service,
            "method": request.method,
            "path": re.sub(r"^https?://[^/]*", "", request.url),
            "headers": headers if service != "s3" else {},
            "body": text.decode() if isinstance(text, bytes) else text,
        }
    )
    return send(self, request)


def general(requests):
    """Return the requests without what is of this run; looks at the same thing only once."""
    text = re.sub(r"(AmazonSageMaker-ExecutionRole-)\w+", r"\1X", json.dumps(requests))
    account = re.search(r"sagemaker-us-east-1-(\d{12})", text)
    if account:
        text = text.replace(account[1], ACCOUNT)
    found = []
    for request in json.loads(text):
        looks_at_s3 = request["service"] == "s3" and request["method"] != "PUT"
        goes_on = request["service"] == "logs" and "nextToken" in request["body"]
        if not looks_at_s3 and not goes_on and request not in found:
            found.append(request)
    return found


if __name__ == "__main__":
    story, trace = sys.argv[1:]
    botocore.endpoint.Endpoint._send = recorded
    stories = Path(__file__).parent / "stories"
    sys.path.insert(0, str(stories))
    runpy.run_path(str(stories / f"{story}.py"), run_name="__main__")
    Path(trace).write_text(json.dumps(general(sent), indent=1) + "\n")
