"""The server's program: `cloche.server`, with no collection of garbage while it is imported.

Classes, functions and shapes of 700 modules live as long as the server: looking through them again
and again is a tenth of a start, and would be a pause of each full collection later.
"""

import gc
import runpy

if __name__ == "__main__":
    gc.disable()
    runpy.run_module("cloche.server", run_name="__main__", alter_sys=True)
