"""What can be said of the images without building one; tests/images/build.sh builds and tries."""

import re
import runpy
import shutil
import subprocess
import sys

import pytest
from places import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

IMAGES = {"device": "device", "jetson": "device", "cuda": "desk", "desk": "desk"}  # what it holds
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


def made_of(name, known):
    """Return every line of an image and of the stages that it stands on, the first one's first."""
    base, lines = known[name]
    return (made_of(base, known) if base in known else []) + lines


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
    for name, kind in IMAGES.items():
        lines = made_of(name, known)
        assert "USER 10001:10001" in lines  # a number: whoever asks for no root can tell
        assert 'ENTRYPOINT ["edge-train"]' in lines
        copies = [line for line in lines if line.startswith("COPY")]
        assert copies == [f"COPY --from={kind}-build /opt/edge-train /opt/edge-train"]
        runs = [line.split("sh ")[1] for line in lines if line.startswith("RUN")]
        assert runs == ["/docker/base.sh"]


def test_no_two_stages_repeat_what_they_install():
    """Images of one kind share it: a change of one is a change of both."""
    installing = [line for _, lines in stages().values() for line in lines if "install.sh" in line]
    assert len(installing) == len(set(installing)) == len(set(IMAGES.values()))


def test_the_image_that_is_built_where_no_target_is_named_is_the_desk():
    assert next(reversed(stages())) == "desk"


def test_no_image_of_a_device_installs_torch():
    known = stages()
    assert any("docker/install.sh device" in line for line in known["device-build"][1])
    assert "TORCH" not in " ".join(known["device-build"][1])
    extras = PROJECT["project"]["optional-dependencies"]
    assert not any("torch" in line for line in extras["device"])


@pytest.mark.parametrize("name", NAMING)
def test_every_stage_and_argument_that_a_file_names_exists(name):
    text = (ROOT / name).read_text()
    targets = set(re.findall(r"--target[ =](\w[\w-]*)", text))
    assert targets <= IMAGES.keys()
    assert set(re.findall(r"--build-arg[ =]\"?([A-Z_]+)=", text)) <= arguments()


def test_the_page_names_every_image_and_every_argument():
    page = (ROOT / "docs/containers.md").read_text()
    assert set(re.findall(r"--target (\w+)", page)) == IMAGES.keys()
    assert {name for name in arguments() if f"`{name}`" not in page} == set()


def test_the_script_of_the_build_reads_the_arguments_of_the_file():
    script = (ROOT / "docker/install.sh").read_text()
    read = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", script))
    assert read == {name for name in arguments() if not name.endswith("_IMAGE")}


def test_what_only_the_client_of_the_hub_brings_is_no_part_of_a_device():
    """And all that something else asks for stays, also where that is asked for by the client."""
    unread = runpy.run_path(str(ROOT / "docker/unread.py"))["unread"]
    asks = {
        "edge-train": {"numpy", "tokenizers"},
        "tokenizers": {"huggingface-hub"},
        "huggingface-hub": {"hf-xet", "packaging", "click", "colorama"},  # one is not installed
        "click": {"huggingface-hub"},  # a circle
        "onnxruntime": {"packaging"},
    }
    asks |= {name: set() for name in ("numpy", "hf-xet", "packaging")}
    assert unread(asks) == {"huggingface-hub", "hf-xet", "click"}
    assert unread({"numpy": set()}) == set()


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
