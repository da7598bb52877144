"""Runs a notebook's cells in a kernel of its own, as Jupyter does; `cloche run` starts this.

python run_notebook.py NOTEBOOK RESULT [TAG]: cells with that tag are left out.
"""

import sys
from pathlib import Path

import nbclient
import nbformat

source, result, *tags = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
notebook.cells = [c for c in notebook.cells if not set(tags) & set(c.metadata.get("tags", ()))]
where = {"metadata": {"path": str(Path(source).parent)}}
try:
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()
finally:
    nbformat.write(notebook, result)
