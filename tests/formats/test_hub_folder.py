"""A model's name is a folder, or a hub id that is taken from the cache where that is whole."""

import shutil

import huggingface_hub
import pytest

from edge_train.errors import ModelError
from edge_train.formats.embedded import EMBEDDED
from edge_train.formats.hub import find_folder, name_for_others


class Hub:
    """A hub of one repository, and a cache of it."""

    def __init__(self, repository, cache):
        self.repository, self.cache, self.online, self.fetched = repository, cache, True, []

    def snapshot_download(self, name, *, local_files_only=False, allow_patterns=("*",)):
        if local_files_only:
            if not self.cache.exists():
                raise FileNotFoundError("not in the cache")
            return str(self.cache)
        if not self.online:
            raise ConnectionError("no network here")
        self.cache.mkdir(exist_ok=True)
        for path in self.repository.iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copyfile(path, self.cache / path.name)
                self.fetched.append(path.name)
        return str(self.cache)

    def list_repo_files(self, name):
        if not self.online:
            raise ConnectionError("no network here")
        return [path.name for path in self.repository.iterdir()]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    repository.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin"):
        (repository / name).write_text("{}")
    hub = Hub(repository, tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", hub.list_repo_files)
    monkeypatch.chdir(tmp_path)
    return hub


@pytest.mark.parametrize("name", ["owner/name", "gpt2"])
def test_a_hub_id_is_fetched_once_without_pickles_and_then_taken_offline(hub, name):
    assert find_folder(name) == (hub.cache, name)
    assert "pytorch_model.bin" not in hub.fetched and "model.safetensors" in hub.fetched
    hub.online = False
    assert find_folder(name) == (hub.cache, name)


@pytest.mark.parametrize("name", ["model.gguf", "models/Model.GGUF", "/no/such/model.gguf"])
def test_a_gguf_file_that_is_not_there_is_said_so_and_not_asked_for_in_the_hub(hub, name):
    with pytest.raises(ModelError, match="there is no such file"):
        find_folder(name)
    assert not hub.fetched


def test_a_cache_of_texts_alone_is_not_taken_for_the_model(hub):
    hub.snapshot_download("owner/name", allow_patterns=["*.json"])
    folder, _ = find_folder("owner/name")
    assert (folder / "model.safetensors").is_file()


def test_a_folder_goes_by_its_whole_path(hub, tmp_path):
    assert find_folder("repository")[1] == str(tmp_path / "repository")


def test_what_cannot_be_had_is_one_sentence(hub, tmp_path):
    hub.online = False
    with pytest.raises(ModelError, match=r"nor to be had from the hub \(no network here\)"):
        find_folder("owner/name")
    with pytest.raises(ModelError, match="not a folder here and not a hub id"):
        find_folder("./no/such/folder")
    with pytest.raises(ModelError, match="is a file, expected the folder"):
        find_folder("repository/config.json")


@pytest.mark.parametrize("name", ["gone.gguf", "./no/such/folder", "owner/name"])
def test_a_flag_is_named_where_a_command_has_one(hub, name):
    hub.online = False
    for flag in ("--model", "--base", ""):
        with pytest.raises(ModelError) as caught:
            find_folder(name, flag)
        assert ("--" in str(caught.value)) == bool(flag) and f"{flag} " in str(caught.value)


def test_files_that_people_share_name_a_model_without_its_place(tmp_path, monkeypatch):
    folder = tmp_path / "sd15"
    folder.mkdir()
    assert name_for_others(str(folder)) == "sd15"
    monkeypatch.chdir(folder)
    assert (name_for_others("."), name_for_others("../sd15/")) == ("sd15", "sd15")
    for cached, known in (("models--owner--sd-turbo", "owner/sd-turbo"), ("models--gpt2", "gpt2")):
        snapshot = tmp_path / cached / "snapshots" / "0f"
        snapshot.mkdir(parents=True)
        assert name_for_others(str(snapshot)) == known
    assert name_for_others("owner/sd-turbo") == "owner/sd-turbo"


def test_a_folder_called_like_the_embedded_model_is_not_taken_for_it(tmp_path):
    (tmp_path / EMBEDDED).mkdir()
    assert name_for_others(str(tmp_path / EMBEDDED)) == f"./{EMBEDDED}"
    assert name_for_others(EMBEDDED) == EMBEDDED
