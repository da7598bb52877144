"""The table of environments: what stands behind which image, and what users may add."""

import json
from pathlib import Path
from typing import Any

import pytest

from cloche.core.config import Home
from cloche.environments import added
from cloche.environments.added import IMAGE, TableError, add, frameworks, named, standing_for
from cloche.environments.table import (
    FRAMEWORKS,
    Framework,
    asked_for,
    base_of,
    fitting,
    modules_of,
    named_here,
    over,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_table_is_sound() -> None:
    repositories = [r for framework in FRAMEWORKS for r in framework.repositories]
    assert len(set(repositories)) == len(repositories)
    assert all(added.REPOSITORY.fullmatch(r) for r in repositories)
    assert all(added.PACKAGE.fullmatch(p) for f in FRAMEWORKS for p in f.packages)
    assert all(added.NAME.fullmatch(framework.name) for framework in FRAMEWORKS)
    toolkits = ["pytorch-toolkits", "scikit-learn-toolkits"]
    tested = ["pytorch", "scikit-learn", "smdebug", "openmpi", *toolkits]
    assert [f.name for f in FRAMEWORKS if f.tested] == tested


def test_what_users_add_is_not_trusted(home: Home) -> None:
    """It is no name of the table's, and nothing of it is imported by a fork server."""
    for framework in FRAMEWORKS:
        assert named_here(framework)
        assert not named_here(Framework(framework.name, (), (*framework.packages, "more")))
        made = add(home, "mine", ["team/mine"], framework.packages, replace=True)
        assert not named_here(made) and made.preload == () and made.added


def test_environments_over_others() -> None:
    """What stands on another has no images of its own, and modules that ask for it."""
    standing = [framework for framework in FRAMEWORKS if framework.over]
    assert {f.name: f.over for f in standing} == {
        "smdebug": "pytorch",
        "smdebug-toolkits": "smdebug",
        **{f"{f.name}-toolkits": f.name for f in FRAMEWORKS if f.repositories},
    }
    for framework in standing:
        base = base_of(framework)
        assert base is not None and framework.imported
        assert framework in over(base) and not framework.repositories
        assert framework.training_module == base.training_module
        assert framework.handlers == base.handlers and framework.shell == base.shell


@pytest.mark.parametrize(
    ("base", "imported", "name"),
    [
        ("pytorch", set(), "pytorch"),
        ("pytorch", {"numpy"}, "pytorch"),
        ("pytorch", {"smdebug"}, "smdebug"),
        ("pytorch", {"sagemaker_inference", "flask"}, "pytorch-toolkits"),
        ("pytorch", {"sagemaker_training", "smdebug"}, "smdebug-toolkits"),
        ("scikit-learn", {"sagemaker_containers"}, "scikit-learn-toolkits"),
        ("scikit-learn", {"smdebug"}, "scikit-learn"),
        ("xgboost", {"sagemaker_xgboost_container"}, "xgboost-toolkits"),
    ],
)
def test_the_least_environment_that_has_what_is_imported(
    base: str, imported: set[str], name: str
) -> None:
    framework = next(f for f in FRAMEWORKS if f.name == base)
    assert fitting(framework, imported).name == name
    assert imported & asked_for(framework) <= modules_of(fitting(framework, imported))


def test_what_users_add_gets_nothing_over_it(home: Home) -> None:
    """Nobody vouches for what lies beneath."""
    made = add(home, "mine", ["team/mine"], ["six"], replace=False)
    assert over(made) == () and fitting(made, {"smdebug", "flask"}) == made


CPU = {"instance_type": "ml.m5.large"}
ARM = {"instance_type": "ml.c7g.large"}
GPU = {"instance_type": "ml.p3.2xlarge"}
SDK_IMAGES: list[tuple[str, dict[str, Any]]] = [
    ("pytorch", {"framework": "pytorch", "version": "2.6", "py_version": "py312", **CPU}),
    ("pytorch", {"framework": "pytorch", "version": "1.8", "py_version": "py36", **CPU}),
    ("pytorch", {"framework": "pytorch", "version": "1.1.0", "py_version": "py3", **CPU}),
    ("scikit-learn", {"framework": "sklearn", "version": "1.2-1", "py_version": "py3", **CPU}),
    ("scikit-learn", {"framework": "sklearn", "version": "0.23-1", "py_version": "py3", **CPU}),
    ("xgboost", {"framework": "xgboost", "version": "1.7-1", "py_version": "py3", **CPU}),
    ("pytorch", {"framework": "pytorch", "version": "2.4.0", "py_version": "py311", **ARM}),
    ("tensorflow", {"framework": "tensorflow", "version": "2.16", "py_version": "py310", **CPU}),
]
HUGGING_FACE = {
    "framework": "huggingface",
    "base_framework_version": "pytorch2.1.0",
    "py_version": "py310",
}
SCOPES = {"training": {"version": "4.36.0", **GPU}, "inference": {"version": "4.37.0", **CPU}}


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1", "ap-southeast-2", "cn-north-1"])
def test_images_of_the_sdk(region: str, home: Home) -> None:
    """Registries differ by region and framework; the repository alone decides."""
    image_uris = pytest.importorskip("sagemaker.image_uris")
    wanted = [
        (name, arguments | {"image_scope": scope})
        for name, arguments in SDK_IMAGES
        for scope in SCOPES
    ]
    wanted += [
        ("huggingface", HUGGING_FACE | more | {"image_scope": scope})
        for scope, more in SCOPES.items()
    ]
    registries = set()
    for name, arguments in wanted:
        match = IMAGE.fullmatch(image_uris.retrieve(region=region, **arguments))
        assert match is not None
        found = standing_for(match["repository"], home)
        assert found is not None and found.name == name, (arguments, match.string)
        registries.add(match["registry"])
    assert len(registries) >= 2


def test_added_is_kept_and_goes_first(home: Home) -> None:
    uri = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:1.0"
    made = add(home, "mine", [uri, "pytorch-training"], ["six==1.17.0"], replace=False)
    assert made.repositories == ("team/app", "pytorch-training")
    assert [f.name for f in frameworks(home)] == ["mine", *(f.name for f in FRAMEWORKS)]
    for repository in made.repositories:
        assert standing_for(repository, home) == made == named("mine", home)
    inference = standing_for("pytorch-inference", home)
    assert inference is not None and inference.name == "pytorch"
    with pytest.raises(TableError, match=r"already\. To change it, add --replace\."):
        add(home, "mine", ["team/app"], ["six"], replace=False)
    add(home, "other", ["team/other"], ["six"], replace=False)
    changed = add(home, "mine", ["team/app"], ["six", "attrs"], replace=True)
    assert named("mine", home) == changed and named("other", home).packages == ("six",)


@pytest.mark.parametrize(
    "package",
    [
        "six",
        "lightgbm==4.6",
        "torch[opt]>=2,<3",
        "a ~= 1.0 ; python_version > '3'",
        "x@https://h/x",
    ],
)
def test_packages_that_pip_takes(home: Home, package: str) -> None:
    assert add(home, "mine", ["app"], [package], replace=False).packages == (package,)


@pytest.mark.parametrize(
    ("name", "repository", "package", "text"),
    [
        ("Mine", "app", "six", "'Mine' is not a valid name: use a-z"),
        ("../up", "app", "six", "'../up' is not a valid name"),
        ("pytorch", "app", "six", "pytorch comes with Cloche. Choose another name"),
        ("mine", "App", "six", "mine: 'App' is not a repository"),
        ("mine", "registry:5000/app", "six", "is not a repository"),
        ("mine", "app", "--index-url=http://x", "'--index-url=http://x' is not a package"),
        ("mine", "app", "-r", "'-r' is not a package"),
        ("mine", "app", "six ==", "'six ==' is not a package"),
        ("mine", "app", "six attrs", "'six attrs' is not a package"),
        ("mine", "app", "", "'' is not a package"),
        ("mine", "taken", "six", "mine: first already stands for taken."),
    ],
)
def test_what_is_refused(home: Home, name: str, repository: str, package: str, text: str) -> None:
    add(home, "first", ["taken"], ["six"], replace=False)
    before = home.environments_table.read_text()
    with pytest.raises(TableError) as error:
        add(home, name, [repository], [package], replace=False)
    assert text in str(error.value)
    assert home.environments_table.read_text() == before


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "can't be read: "),
        ("[]", 'holds no {"environments": {NAME: …}}'),
        ('{"environments": {"a": {"repositories": ["x"]}}}', "a must have repositories and"),
        (
            '{"environments": {"a": {"repositories": [], "packages": ["x"]}}}',
            "a: repositories must be a list with at least one text.",
        ),
        (
            '{"environments": {"a": {"repositories": ["x"], "packages": [7]}}}',
            "a: 7 is not a package",
        ),
    ],
)
def test_a_file_edited_wrongly_is_named(home: Home, content: str, text: str) -> None:
    home.environments_table.write_text(content)
    with pytest.raises(TableError) as error:
        standing_for("pytorch-training", home)
    assert str(home.environments_table) in str(error.value) and text in str(error.value)
    assert "Fix it by hand" in str(error.value)
    assert home.environments_table.read_text() == content


def test_file_is_what_the_docs_say(home: Home) -> None:
    add(home, "mine", ["app"], [" six "], replace=False)
    kept = json.loads(home.environments_table.read_text())
    assert kept == {"environments": {"mine": {"repositories": ["app"], "packages": ["six"]}}}
