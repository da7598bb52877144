"""Layers: what one gang changed in a folder, laid over that folder for others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.engine import EngineError, GangSpec
from cloche.engine.local.probe import probe, reduced
from cloche.engine.local.sandbox import UPPER
from cloche.testing.engine_lab import Lab, outcomes
from cloche.testing.local_engine import local_lab

SANDBOXED = probe()
sandboxed = pytest.mark.skipif(SANDBOXED.isolation != "full", reason="needs sandboxes")
SHOW = "cd /packages; for f in $(find . -type f | sort); do echo $f $(cat $f); done"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with local_lab(tmp_path, SANDBOXED) as lab:
        packages = lab.folder / "packages"
        packages.mkdir()
        for name in ("kept", "replaced", "removed"):
            (packages / name).write_text("old")
        (packages / "folder").mkdir()
        (packages / "folder/file").write_text("old")
        yield lab


@sandboxed
def test_changes_become_a_layer(lab: Lab) -> None:
    """New, replaced and removed files, a folder that was made anew: all as the first gang left it;
    the source and the layer do not change.
    """
    layer, source = lab.folder / "layer", lab.folder / "packages"
    changes = lab.mount(source, "/packages", "overlay", changes=lab.engine.stage(layer))
    script = (
        "cd /packages; echo new > new; echo newer > replaced; rm removed; rm -r folder;"
        "mkdir folder; echo new > folder/other"
    )
    assert outcomes(lab.run(lab.process("one", script, changes), name="makes")) == {
        "one": (0, None)
    }
    over = lab.mount(source, "/packages", "overlay", layers=(lab.engine.stage(layer),))
    lab.run(lab.process("two", f"echo more > /packages/new; {SHOW}", over), name="uses")
    lab.run(lab.process("three", SHOW, over), name="uses-again")
    assert lab.log("two") == [
        "./folder/other new",
        "./kept old",
        "./new more",
        "./replaced newer",
    ]
    assert lab.log("three")[2] == "./new new"
    assert (source / "removed").read_text() == "old" and not (source / "new").exists()


@sandboxed
def test_later_layers_lie_higher(lab: Lab) -> None:
    for name in ("low", "high"):
        changes = lab.folder / name / UPPER
        changes.mkdir(parents=True)
        (changes / "replaced").write_text(name)
        (changes / name).write_text(name)
    layers = tuple(lab.engine.stage(lab.folder / name) for name in ("low", "high"))
    over = lab.mount(lab.folder / "packages", "/packages", "overlay", layers=layers)
    lab.run(lab.process("one", SHOW, over))
    assert "./replaced high" in lab.log("one")
    assert {"./low low", "./high high"} <= set(lab.log("one"))


@sandboxed
def test_a_layer_that_is_missing(lab: Lab) -> None:
    gone = lab.folder / "gone"
    over = lab.mount(
        lab.folder / "packages", "/packages", "overlay", layers=(lab.engine.stage(gone),)
    )
    with pytest.raises(EngineError, match=f"^one: {gone}/{UPPER} is not a folder to overlay$"):
        lab.engine.launch(GangSpec(name="g", processes=(lab.process("one", "true", over),)))


def test_layers_need_sandboxes(tmp_path: Path) -> None:
    with local_lab(tmp_path, reduced()) as lab:
        assert lab.engine.layered is False
        for name in ("source", UPPER):
            (lab.folder / name).mkdir()
        over = lab.mount(
            lab.folder / "source", "/packages", "overlay", layers=(lab.engine.stage(lab.folder),)
        )
        with pytest.raises(
            EngineError, match=r"^g: layers need sandboxes, and there are none here$"
        ):
            lab.engine.launch(GangSpec(name="g", processes=(lab.process("one", "true", over),)))
