"""What a log says about a module that is not there."""

import sys
import textwrap
from pathlib import Path

import pytest
from script_imports import most

from cloche.environments.image_contents import HELD, distribution
from cloche.environments.ready import normal
from cloche.runtime import missing_modules
from cloche.runtime.missing_modules import advice, advice_for, line_for

TRACE = "Traceback (most recent call last):\n"
LINES = [
    ("cv2", "opencv-python-headless"),
    ("PIL.Image", "pillow"),
    ("sklearn.ensemble", "scikit-learn"),
    ("yaml", "pyyaml"),
    ("bs4", "beautifulsoup4"),
    ("sentence_transformers", "sentence-transformers"),
    ("google.protobuf", "protobuf"),
    ("timm.models", "timm"),
    ("utils", ""),
]


@pytest.mark.parametrize(("module", "line"), LINES)
def test_line_for_requirements(module: str, line: str) -> None:
    assert line_for(module) == line


def test_lines_are_the_packages_of_the_images() -> None:
    """What the environments are built from and what scripts read is the same."""
    for modules in HELD.values():
        for module, package in modules.items():
            assert normal(line_for(module)) == normal(distribution(package)), module


def test_every_module_that_many_scripts_import_is_known() -> None:
    unknown = [m for m in most(60) if not line_for(m)]
    assert unknown == ["sagemaker_xgboost_container", "smdistributed", "fbprophet"]
    assert advice("smdistributed.dataparallel") == (
        "smdistributed is not in the environment, and no package has it: "
        "it is for AWS's GPU clusters. Use torch.distributed with the backend gloo."
    )
    assert advice("fbprophet") == (
        "fbprophet is now called prophet: import that instead. "
        "To install it, add this line to requirements.txt: prophet"
    )


def test_texts() -> None:
    assert advice("cv2") == (
        "cv2 is not in the environment. To install it, add this line to requirements.txt: "
        "opencv-python-headless"
    )
    assert advice("my_helpers.data") == (
        "my_helpers is neither beside the script nor in the environment. If it is a package's, "
        "name that package in requirements.txt."
    )


def test_names_are_unambiguous() -> None:
    assert not missing_modules.SAME_NAMES & set(missing_modules.OTHER_NAMES)
    assert not missing_modules.SAME_NAMES & set(missing_modules.NEW_NAMES)


MISSES = "ModuleNotFoundError: No module named 'timm_nowhere'"
CASES = {
    "alone": (f"{TRACE}  File x\n{MISSES}\n", "timm_nowhere"),
    "of a package": (f"{TRACE}  File x\nModuleNotFoundError: No module named 'cv9.x'\n", "cv9"),
    "as an older Python says it": (f"{TRACE}ImportError: No module named timm_nowhere\n", "timm"),
    "by mpirun": (f"[1,1]<stderr>:{TRACE}[1,1]<stderr>:{MISSES}\n", "timm_nowhere"),
    "raised anew": (
        f"{TRACE}{MISSES}\n\nThe above exception was the direct cause of the following exception:\n"
        f"\n{TRACE}RuntimeError: install timm_nowhere\n",
        "timm_nowhere",
    ),
    "while it was handled": (
        f"{TRACE}{MISSES}\n\nDuring handling of the above exception, another exception occurred:\n"
        f"\n{TRACE}NameError: name 'x' is not defined\n",
        "timm_nowhere",
    ),
    "below torchrun": (
        f"{TRACE}{MISSES}\n{TRACE}  File torch/distributed/run.py\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n",
        "timm_nowhere",
    ),
    "caught and gone on": (f"{TRACE}{MISSES}\nWarning: slow\n{TRACE}ValueError: other\n", ""),
    "printed": (f"{MISSES}\n", ""),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_module_that_it_failed_for(case: str) -> None:
    stderr, module = CASES[case]
    found = advice_for(stderr, sys.path)
    assert found.startswith(module) and bool(found) == bool(module)


def test_part_of_a_package_that_is_there(tmp_path: Path) -> None:
    """Installing it again would change nothing: neither a package's nor a file's of the user."""
    gone = f"{TRACE}ModuleNotFoundError: No module named '{{}}'\n"
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers/__init__.py").touch()
    assert advice_for(gone.format("numpy.nowhere"), sys.path) == ""
    assert advice_for(gone.format("helpers.nowhere"), [str(tmp_path)]) == ""
    assert "helpers is neither" in advice_for(gone.format("helpers.nowhere"), sys.path)


def test_all_names_are_of_modules() -> None:
    names = textwrap.dedent(missing_modules.NAMES).split()
    assert len(names) == len(set(names)) > 100 and all(n.isidentifier() for n in names)
