"""demos/raspberry_pi/camera.py with a fake camera: it teaches, goes on, and loses nothing."""

import importlib.util
import io
import json
import os
import shutil
import sys
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from places import DEMOS
from tiny_backbone import write_backbone, write_classes

pytest.importorskip("onnxruntime")


def load():
    path = DEMOS / "raspberry_pi" / "camera.py"
    spec = importlib.util.spec_from_file_location("camera_demo", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


demo = load()


class FakeCamera:
    """Shows pictures in turn, and is unplugged where there are no more."""

    def __init__(self, pictures):
        self._pictures = list(pictures)

    def take(self):
        if not self._pictures:
            raise OSError("no such device")
        return self._pictures.pop(0)


def shown(folder, *names, count=3):
    """Return pictures of some classes, one class after the other."""
    write_classes(folder, ("cat", "dog", "owl"), count=count)
    return [
        Image.open(file).convert("RGB") for n in names for file in sorted((folder / n).iterdir())
    ]


def words(tmp_path, *more):
    model = tmp_path / "tiny.onnx"
    if not model.exists():
        write_backbone(model)
    runs = ("--runs", str(tmp_path / "runs"), "--mem", "2GB")
    return [str(tmp_path / "pictures"), "--model", str(model), *runs, *more]


def kept(tmp_path):
    return sorted(str(f.relative_to(tmp_path / "pictures")) for f in tmp_path.rglob("0*.jpg"))


@pytest.mark.process
def test_typed_names_teach_and_enter_alone_asks(tmp_path, monkeypatch, capfd):
    pictures = shown(tmp_path / "shown", "cat", "dog")
    typed = "\n" + "cat\n" * 3 + "../up\n" + "dog\n" * 2 + "\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    camera = FakeCamera([pictures[0], *pictures[:3], pictures[0], *pictures[3:5], pictures[5]])
    assert demo.main(words(tmp_path), camera) == 0
    said = capfd.readouterr().out
    assert "nothing is learned yet" in said
    assert "'../up' cannot be a name" in said
    assert "learned 2 things: cat, dog" in said
    assert "0001.jpg: " in said.splitlines()[-1]  # the answer of `edge-train infer`
    assert kept(tmp_path) == [
        *(f"cat/000{n}.jpg" for n in (1, 2, 3)),
        "dog/0001.jpg",
        "dog/0002.jpg",
    ]


@pytest.mark.process
def test_it_goes_on_from_what_it_learned_and_from_what_a_power_cut_left(tmp_path, capfd):
    pictures = shown(tmp_path / "shown", "cat", "dog", "owl", count=2)
    for number, name in enumerate(("cat", "dog", "owl")):
        camera = FakeCamera(pictures[2 * number : 2 * number + 2])
        more = ("--label", name, "--count", "2", "--pause", "0")
        assert demo.main(words(tmp_path, *more), camera) == 0
        if name == "dog":  # of this run nothing but its journal and checkpoints is left
            for file in ("report.json", "report.html", "classifier.safetensors"):
                (tmp_path / "runs" / "0001" / file).unlink()
    said = "".join(capfd.readouterr())
    assert (tmp_path / "runs" / "0001" / "classifier.safetensors").is_file()
    assert "learned 3 things: cat, dog, owl" in said
    assert "4 pictures from the earlier run" in said
    report = json.loads((tmp_path / "runs" / "0002" / "report.json").read_text())
    assert (report["status"], report["method"]) == ("done", "adamw")


def test_a_run_that_took_no_step_is_begun_anew(tmp_path):
    (tmp_path / "runs" / "0001").mkdir(parents=True)
    demo.Classifier(demo.arguments(words(tmp_path))).go_on()
    assert not (tmp_path / "runs" / "0001").exists()


def test_a_camera_that_vanishes_is_one_sentence_and_loses_no_picture(tmp_path, capsys):
    camera = FakeCamera(shown(tmp_path / "shown", "cat", count=2))
    assert demo.main(words(tmp_path, "--label", "cat", "--pause", "0"), camera) == 3
    said = capsys.readouterr().err
    assert "the camera is gone (no such device); plug it in, then start this command again" in said
    assert len(said.splitlines()) == 1
    assert kept(tmp_path) == ["cat/0001.jpg", "cat/0002.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="files have no limit there")
def test_a_card_that_fills_is_one_sentence_and_leaves_no_half_picture(tmp_path, capsys):
    import resource

    small = shown(tmp_path / "shown", "cat")[0]
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    camera = FakeCamera([small, Image.fromarray(noise)])
    more = words(tmp_path, "--label", "cat", "--count", "2", "--pause", "0")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # as on a full card, the last write takes fewer bytes than it is given; 34 kB are wanted
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        assert demo.main(more, camera) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err
    assert "File too large; make room there" in said
    assert len(said.splitlines()) == 1
    assert kept(tmp_path) == ["cat/0001.jpg"]
    assert not list(tmp_path.rglob(".part*"))


def learning(monkeypatch, fails):
    """Let `edge-train run` end at once: with status 2 for the first `fails` times, then done."""
    calls = []

    def edge_train(self, *said):
        calls.append(said[0])
        if said[0] == "run" and len(calls) <= fails:
            raise demo.Stopped("edge-train run stopped (status 2)")
        if said[0] == "run":
            run = self.runs / said[said.index("--out") + 1]
            run.mkdir(parents=True)
            (run / "report.json").write_text('{"status": "done"}')

    monkeypatch.setattr(demo.Classifier, "_edge_train", edge_train)
    return calls


def test_what_was_taken_and_not_learned_is_learned_by_the_same_command(tmp_path, monkeypatch):
    calls = learning(monkeypatch, fails=1)
    shown(tmp_path / "shown", "cat")
    command = words(tmp_path, "--camera", str(tmp_path / "shown"), "--every", "4")
    assert demo.main(command) == 3
    assert demo.main(command) == 0
    assert len(kept(tmp_path)) == 9  # none of them twice
    assert calls == ["run"] * 3  # after the fifth picture, and after the last
    assert demo.main(command) == 0
    assert calls == ["run"] * 3  # nothing is new


def test_a_folder_that_vanishes_is_one_sentence_and_loses_no_picture(tmp_path, capsys, monkeypatch):
    def vanishing(picture, folder, once):
        shutil.rmtree(tmp_path / "shown")
        return keep(picture, folder, once=once)

    keep = demo.keep
    monkeypatch.setattr(demo, "keep", vanishing)
    shown(tmp_path / "shown", "cat")
    assert demo.main(words(tmp_path, "--camera", str(tmp_path / "shown"))) == 3
    said = capsys.readouterr().err
    assert "is gone; bring it back, then start this command again" in said
    assert len(said.splitlines()) == 1
    assert kept(tmp_path) == ["cat/0001.jpg"]


def test_a_broken_picture_of_a_folder_is_left_aside(tmp_path, capsys):
    folder = tmp_path / "shown"
    shown(folder, count=1)
    (folder / "cat" / "broken.jpg").write_bytes(b"no picture")
    options = demo.arguments(words(tmp_path, "--camera", str(folder)))
    assert [label for label, _ in demo.shots(options, None)] == ["cat", "dog", "owl"]
    assert "broken.jpg: left aside" in capsys.readouterr().out


def picamera2(monkeypatch):
    class Picamera2:
        gone = False

        def create_still_configuration(self, main):
            return main

        def configure(self, configuration):
            self.size = configuration["size"]

        def start(self):
            pass

        def capture_image(self, name, wait):
            if self.gone:
                raise FutureTimeoutError
            return Image.new("RGBA", self.size)

    module = ModuleType("picamera2")
    module.Picamera2 = Picamera2
    monkeypatch.setitem(sys.modules, "picamera2", module)


def opencv(monkeypatch, opened):
    class VideoCapture:
        def __init__(self, source, interface):
            self.asked = (source, interface)

        def isOpened(self):
            return opened

        def read(self):
            return True, np.full((4, 6, 3), (1, 2, 3), np.uint8)

    module = ModuleType("cv2")
    module.VideoCapture, module.CAP_V4L2, module.CAP_GSTREAMER = VideoCapture, "v4l2", "gst"
    monkeypatch.setitem(sys.modules, "cv2", module)


def test_the_ribbon_camera_comes_first_then_usb_then_a_pipeline(monkeypatch):
    opencv(monkeypatch, opened=True)
    monkeypatch.setitem(sys.modules, "picamera2", None)  # not installed
    usb = demo.open_camera("auto")
    assert usb._camera.asked == (0, "v4l2")
    assert usb.take().getpixel((0, 0)) == (3, 2, 1)
    assert demo.open_camera("nvarguscamerasrc ! appsink")._camera.asked[1] == "gst"
    picamera2(monkeypatch)
    assert demo.open_camera("auto").take().size == demo.SIZE


def test_a_ribbon_that_came_loose_is_waited_for_and_is_one_sentence(tmp_path, monkeypatch, capsys):
    picamera2(monkeypatch)
    monkeypatch.setattr(sys.modules["picamera2"].Picamera2, "gone", True)
    assert demo.main(words(tmp_path, "--camera", "pi", "--label", "cat")) == 3
    said = capsys.readouterr().err
    assert "the camera is gone (no picture came); plug it in, then start" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("auto", "cv2 is not installed, which reads camera 'auto'"),
        ("pi", "picamera2 is not installed, which reads camera 'pi'"),
    ],
)
def test_without_a_library_it_says_which_to_install(monkeypatch, name, sentence):
    for library in ("picamera2", "cv2"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(demo.Stopped, match=sentence):
        demo.open_camera(name)


def test_a_camera_that_is_not_there_is_one_sentence(monkeypatch):
    opencv(monkeypatch, opened=False)
    with pytest.raises(demo.Stopped, match=r"camera '0': .*plug it in, or name a number"):
        demo.open_camera("0")
    with pytest.raises(demo.Stopped, match="there is no folder 'no-such-folder', and it is no"):
        demo.open_camera("no-such-folder")


def test_a_backbone_that_is_not_there_is_said_before_a_picture_is_taken(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        demo.main([str(tmp_path / "pictures"), "--model", str(tmp_path / "none.onnx")])
    assert ended.value.code == 2
    assert "there is no file" in capsys.readouterr().err
    assert not (tmp_path / "pictures").exists()


def test_a_folder_without_pictures_is_said(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert demo.main(words(tmp_path, "--camera", str(tmp_path / "empty"))) == 0
    assert "there is no picture in" in capsys.readouterr().out
