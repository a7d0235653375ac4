"""What can be said of the images without building one; tests/images/build.sh builds and tries."""

import re
import shutil
import subprocess
import sys

import pytest
from places import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

IMAGES = {"device", "jetson", "cuda", "desk"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Whoever names a stage or an argument of the Dockerfile.
NAMING = ["Dockerfile", "docs/containers.md", "docker/install.sh", "tests/images/build.sh"]


def stages():
    """Return (what it stands on, its lines) of every stage, by name, in the order of the file."""
    found = {}
    for line in DOCKERFILE.replace("\\\n", "").splitlines():
        words = line.split()
        if words[:1] == ["FROM"]:
            assert words[2] == "AS", line
            found[words[3]] = (words[1], [])
        elif found and words and not line.startswith("#"):
            found[next(reversed(found))][1].append(line)
    return found


def arguments():
    return set(re.findall(r"^ARG (\w+)=", DOCKERFILE, re.MULTILINE))


def test_every_base_image_can_be_named_by_whoever_builds():
    known = stages()
    for name, (base, _) in known.items():
        argument = re.fullmatch(r"\$\{(\w+)\}", base)
        if argument is None:
            assert base in list(known)[: list(known).index(name)], name
        else:
            assert argument[1] == f"{name.removesuffix('-base').upper()}_IMAGE"
            assert argument[1] in arguments()


def test_an_image_runs_as_an_ordinary_user_and_holds_no_stage_that_built_it():
    known = stages()
    for name in IMAGES:
        base, lines = known[name]
        assert base == f"{name}-base"
        assert "USER 10001:10001" in lines  # a number: whoever asks for no root can tell
        assert 'ENTRYPOINT ["edge-train"]' in lines
        copies = [line for line in lines if line.startswith("COPY")]
        assert copies == [f"COPY --from={name}-build /opt/edge-train /opt/edge-train"]
        assert not any(line.startswith("RUN") for line in lines)


def test_the_image_that_is_built_where_no_target_is_named_is_the_desk():
    assert next(reversed(stages())) == "desk"


def test_no_image_of_a_device_installs_torch():
    known = stages()
    for name in ("device", "jetson"):
        assert any("docker/install.sh device" in line for line in known[f"{name}-build"][1])
        assert "TORCH" not in " ".join(known[f"{name}-build"][1])
    extras = PROJECT["project"]["optional-dependencies"]
    assert not any("torch" in line for line in extras["device"])


@pytest.mark.parametrize("name", NAMING)
def test_every_stage_and_argument_that_a_file_names_exists(name):
    text = (ROOT / name).read_text()
    targets = set(re.findall(r"--target[ =](\w[\w-]*)", text))
    assert targets <= IMAGES
    assert set(re.findall(r"--build-arg[ =]\"?([A-Z_]+)=", text)) <= arguments()


def test_the_page_names_every_image_and_every_argument():
    page = (ROOT / "docs/containers.md").read_text()
    assert set(re.findall(r"--target (\w+)", page)) == IMAGES
    assert {name for name in arguments() if f"`{name}`" not in page} == set()


def test_the_script_of_the_build_reads_the_arguments_of_the_file():
    script = (ROOT / "docker/install.sh").read_text()
    read = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", script))
    assert read == {name for name in arguments() if not name.endswith("_IMAGE")}


def sent_to_the_builder(name):
    """Return whether .dockerignore lets a file at the top of the repository through."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"  # so that nothing is sent by being forgotten
    return f"!{name}" in rules


def test_the_builder_is_sent_what_an_installation_reads():
    project, tools = PROJECT["project"], PROJECT["tool"]["setuptools"]
    needed = {"pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]}
    needed |= set(tools["package-dir"].values()) | {"docker"}
    assert {name for name in needed if not sent_to_the_builder(name)} == set()


def test_the_builder_is_sent_nothing_else():
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in rules if line.startswith("!")}
    assert {name for name in kept if not (ROOT / name).exists()} == set()
    for name in (".git", ".venv", ".venv-device", ".ci", "tests", "demos", "docs", "runs"):
        assert not sent_to_the_builder(name), name
    assert "**/__pycache__" in rules


@pytest.mark.parametrize("name", ["docker/base.sh", "docker/install.sh", "tests/images/build.sh"])
def test_a_script_of_the_images_can_be_read_by_its_shell(name):
    shell = shutil.which((ROOT / name).read_text().split("\n", 1)[0].split("/")[-1].split()[-1])
    if shell is None:
        pytest.skip("this machine has no such shell")
    done = subprocess.run([shell, "-n", ROOT / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("word", ["build", "try", "count"])
def test_make_images_takes_the_words_that_the_page_names(word):
    assert "tests/images/build.sh $(IMAGES)" in (ROOT / "Makefile").read_text()
    assert f"\n{word}() {{" in (ROOT / "tests/images/build.sh").read_text()
