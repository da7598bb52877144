"""The server of the release before this one, as that one's package has it.

python older.py SETTINGS -
"""

import json
import sys

from cloche.server import serve

if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
