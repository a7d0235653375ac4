"""What a folder of photos becomes, and which folders are refused."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_train.errors import InputError
from edge_train.formats.pictures import MAX_MEGAPIXELS
from edge_train.tasks.personalize.named_things import class_word_of, token_of
from edge_train.tasks.personalize.photos import (
    MAX_PHOTOS,
    Photo,
    flip,
    load_photos,
)


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """Return a smooth picture: red grows to the right, green downward."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), 0 * x + 80]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def load_one(folder: Path, resolution: int = 32) -> Photo:
    (photo,) = load_photos(folder, resolution).photos
    assert photo.pixels.shape == (resolution, resolution, 3)
    assert photo.pixels.dtype == np.uint8
    return photo


def header_only_png(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(chunk))
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + crc
    return start + struct.pack(">I", 1000) + b"IDAT"


def test_photos_come_sorted_whatever_the_case_of_their_suffix(tmp_path: Path) -> None:
    for name in ("c.JPG", "a.jpeg", "d.PnG", "b.webp"):
        picture().save(tmp_path / name)
    photos = load_photos(tmp_path, 16).photos
    assert [photo.name for photo in photos] == ["a.jpeg", "b.webp", "c.JPG", "d.PnG"]
    assert [photo.caption for photo in photos] == [None] * 4


def test_note_says_how_a_photo_was_used(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(64, 48).save(tmp_path / "a.jpg", exif=exif)
    picture(20, 16).save(tmp_path / "b.png")
    picture(32, 32).save(tmp_path / "c.png")
    notes = [photo.note for photo in load_photos(tmp_path, 32).photos]
    assert notes == [
        "48x64, rotated by EXIF, centre crop 48x48, resized to 32x32",
        "20x16, centre crop 16x16, small, enlarged to 32x32",
        "32x32",
    ]


def test_square_photo_of_the_right_size_is_kept_to_the_bit(tmp_path: Path) -> None:
    picture(32, 32).save(tmp_path / "a.png")
    assert np.array_equal(load_one(tmp_path).pixels, np.asarray(picture(32, 32)))


def test_crop_takes_the_middle(tmp_path: Path) -> None:
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste("blue", (32, 0, 64, 32))
    wide.save(tmp_path / "a.png")
    assert (load_one(tmp_path).pixels == (0, 0, 255)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    forward = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the way a camera stored it
    stored = picture(32, 32)
    if orientation in forward:
        stored = stored.transpose(Image.Transpose(forward[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a.{suffix}", exif=exif, lossless=True)
    assert np.array_equal(load_one(tmp_path).pixels, np.asarray(picture(32, 32)))


def test_damaged_exif_does_not_cost_the_photo(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.webp", exif=b"Exif\x00\x00nonsense")
    picture().save(tmp_path / "b.jpg", exif=b"Exif\x00\x00nonsense")
    photo = load_photos(tmp_path, 32).photos[0]
    assert "EXIF damaged, taken as upright" in photo.note


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA", "RGBA", "I;16"])
def test_every_color_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    gray = Image.new("L", (40, 40), 255)
    if mode == "I;16":
        Image.fromarray(np.full((40, 40), 200 * 257, np.uint16)).save(tmp_path / "a.png")
    else:
        gray.convert(mode).save(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    expected = 200 if mode == "I;16" else 255
    assert np.abs(load_one(tmp_path).pixels.astype(int) - expected).max() <= 1  # JPEG rounds


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_transparency_lies_on_white(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 32, 64))
    image.save(tmp_path / f"a.{suffix}", lossless=True)
    photo = load_one(tmp_path, 64)
    assert (photo.pixels[:, 40:] == 255).all()
    assert (photo.pixels[:, :24] == (255, 0, 0)).all()
    assert "transparency on white" in photo.note


def test_transparent_palette_and_color_key_lie_on_white(tmp_path: Path) -> None:
    Image.new("P", (40, 40), 0).save(tmp_path / "a.png", transparency=0)
    Image.new("RGB", (40, 40), (1, 2, 3)).save(tmp_path / "b.png", transparency=(1, 2, 3))
    for photo in load_photos(tmp_path, 32).photos:
        assert (photo.pixels == 255).all()


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_animation_gives_its_first_picture(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    photo = load_one(tmp_path)
    assert (photo.pixels == (255, 0, 0)).all()
    assert "first picture of several" in photo.note


def test_multi_picture_jpeg_gives_its_first_picture(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert np.abs(load_one(tmp_path).pixels.astype(int) - (255, 0, 0)).max() <= 2  # JPEG rounds


def test_large_jpeg_decoded_small_matches_the_full_decode(tmp_path: Path) -> None:
    picture(1600, 1200).save(tmp_path / "a.jpg", quality=95)
    full = Image.open(tmp_path / "a.jpg").crop((200, 0, 1400, 1200))
    expected = np.asarray(full.resize((64, 64), Image.Resampling.LANCZOS)).astype(int)
    found = load_one(tmp_path, 64).pixels.astype(int)
    assert np.abs(found - expected).max() <= 3  # half a pixel of a smooth ramp


def test_caption_of_the_same_name_is_read(tmp_path: Path) -> None:
    for stem in "abcd":
        picture().save(tmp_path / f"{stem}.png")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf  my   dog\ton gra\xc3\x9f \r\n\n")
    (tmp_path / "b.txt").write_text("\n first line\nsecond line\n")
    (tmp_path / "c.TXT").write_text(" \n")
    (tmp_path / "z.txt").write_text("of nobody")
    found = load_photos(tmp_path, 16)
    captions = [photo.caption for photo in found.photos]
    assert captions == ["my dog on gra\u00df", "first line", None, None]
    assert found.notices[-3:] == (
        "left aside: b.txt (only its first line is used)",
        "left aside: c.TXT (an empty caption; the photo is used without one)",
        "left aside: z.txt (not a caption; one has the same name as its photo)",
    )


def test_a_caption_may_end_in_caption(tmp_path: Path) -> None:
    for stem in "ab":
        picture().save(tmp_path / f"{stem}.png")
        (tmp_path / f"{stem}.CAPTION").write_text(f"caption {stem}")
    (tmp_path / "b.txt").write_text("text b")
    found = load_photos(tmp_path, 16)
    assert [photo.caption for photo in found.photos] == ["caption a", "text b"]
    assert "left aside: b.CAPTION (b.txt is read)" in found.notices


def test_a_table_of_the_hub_gives_captions_where_no_file_does(tmp_path: Path) -> None:
    for stem in "abc":
        picture().save(tmp_path / f"{stem}.png")
    (tmp_path / "b.txt").write_text("of the file")
    rows = "file_name,text\na.png,of the table\nb.png,of the table\n"
    (tmp_path / "metadata.csv").write_text(rows)
    found = load_photos(tmp_path, 16).photos
    assert [photo.caption for photo in found] == ["of the table", "of the file", None]
    (tmp_path / "metadata.csv").write_text(rows + "gone.png,x\n")
    with pytest.raises(InputError, match=r"metadata\.csv: no photo gone\.png beside it"):
        load_photos(tmp_path, 16)


def kohya(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        picture().save(folder / name / "1.png")
        (folder / name / "1.caption").write_text(f"of {name}")
    return folder


def test_folders_of_repeats_are_read_as_often_as_they_say(tmp_path: Path) -> None:
    kohya(tmp_path, "10_sks dog", "25_sks dog", "other")
    found = load_photos(tmp_path, 16)
    assert [photo.name for photo in found.photos] == ["10_sks dog/1.png", "25_sks dog/1.png"]
    assert [photo.caption for photo in found.photos] == ["of 10_sks dog", "of 25_sks dog"]
    assert [photo.repeats for photo in found.photos] == [2, 5]  # 10 to 25 in small numbers
    assert found.notices[0] == (
        "photos from 10_sks dog (1 photo), 25_sks dog (1 photo), taken as often as the numbers "
        "in these names say"
    )
    without = "left aside: other (a sub-folder without a number of repeats in its name)"
    assert without in found.notices


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["10_sks dog"], "dog"),
        (["5_<my-dog> old dog", "7_<my-dog> old dog"], "old dog"),
        (["3_dog"], "dog"),
        (["3_sks dog", "3_sks cat"], None),
        (["dog"], None),
        ([], None),
    ],
)
def test_folders_of_repeats_name_the_class(
    tmp_path: Path, names: list[str], word: str | None
) -> None:
    assert class_word_of(kohya(tmp_path / "set", *names)) == word


@pytest.mark.parametrize(
    ("names", "class_word", "token"),
    [
        (["10_sks bag"], "bag", "sks"),
        (["5_<my-dog> old dog", "7_<my-dog> old dog"], "old dog", "<my-dog>"),
        (["10_sks Bag", "3_other"], "bag", "sks"),
        (["3_dog"], "dog", None),
        (["3_sks dog", "3_xyz dog"], "dog", None),
        (["3_sks dog"], "cat", None),
    ],
)
def test_folders_of_repeats_name_what_a_lora_learns(
    tmp_path: Path, names: list[str], class_word: str, token: str | None
) -> None:
    assert token_of(kohya(tmp_path / "set", *names), class_word) == token


def test_a_folder_with_photos_further_down_is_named(tmp_path: Path) -> None:
    kohya(tmp_path, "dogs")
    with pytest.raises(InputError, match=r"but 1 in its folder 'dogs'; .*--photos .*/dogs"):
        load_photos(tmp_path, 16)


def test_what_a_crop_takes_away_is_said(tmp_path: Path) -> None:
    for name, size in {"a": (40, 40), "b": (80, 40), "c": (50, 40), "d": (41, 40)}.items():
        picture(*size).save(tmp_path / f"{name}.png")
    assert load_photos(tmp_path, 16).notices == (
        "3 of 4 photos are cropped to their central square and lose 2 to 50 % of their area, most "
        "of all b.png",
    )


def test_the_same_photo_twice_is_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(32, 32).save(tmp_path / f"{name}.png")
    assert load_photos(tmp_path, 16).notices == ("the same photo more than once: a.png, b.png",)


def test_a_caption_of_another_coding_is_read_or_refused(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("Gr\u00fc\u00dfe".encode("utf-16"))  # as Notepad saves it
    assert load_one(tmp_path).caption == "Gr\u00fc\u00dfe"
    (tmp_path / "a.txt").write_bytes("Gr\u00fc\u00dfe".encode("utf-8-sig"))
    assert load_one(tmp_path).caption == "Gr\u00fc\u00dfe"
    (tmp_path / "a.txt").write_bytes("un caf\u00e9 noir, tr\u00e8s beau".encode("cp1252"))
    found = load_photos(tmp_path, 16)
    assert found.photos[0].caption == "un caf\u00e9 noir, tr\u00e8s beau"
    assert any("a.txt is not UTF-8: it is read as Windows-1252" in line for line in found.notices)
    (tmp_path / "a.txt").write_bytes("\u0421\u043e\u0431\u0430\u043a\u0430".encode("cp1251"))
    with pytest.raises(InputError, match=r"a\.txt: line 1 is not UTF-8.*iconv -f CODING"):
        load_photos(tmp_path, 16)


def test_everything_else_is_listed_with_a_reason(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    for name in (".hidden.jpg", "._a.png", "clip.mov", "data.json", "Thumbs.db", "noextension"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "more").mkdir()
    (tmp_path / "folder.jpg").mkdir()
    found = load_photos(tmp_path, 16)
    assert [photo.name for photo in found.photos] == ["a.png"]
    other = "not a picture; .jpg, .png, .webp, .gif, .bmp, .tif, .avif or .heic are read"
    assert found.notices[1:] == (
        "left aside: ._a.png, .hidden.jpg (hidden file)",
        "left aside: Thumbs.db (made by the system, not by you)",
        f"left aside: clip.mov, data.json, noextension ({other})",
        "left aside: folder.jpg, more (a sub-folder; those beside photos are not read)",
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"a letter to my dog", "damaged, cut short, or not a JPEG"),
        (b"<!DOCTYPE html><html>", "a web page, as a failed download leaves it"),
        (b"version https://git-lfs.github.com/spec/v1", "only a pointer of Git LFS"),
        (b"GIF89a" + bytes(40), "damaged, cut short, or not a JPEG, PNG, WebP"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "damaged"),
    ],
)
def test_photo_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(content)
    with pytest.raises(InputError, match=rf"b\.jpg: .*{reason}.*remove it .*or replace it\."):
        load_photos(tmp_path, 16)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_photo_cut_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, {"jpg": "JPEG"}.get(suffix, suffix))
    content = buffer.getvalue()
    for length in range(1, len(content) - 64, len(content) // 40):
        (tmp_path / f"a.{suffix}").write_bytes(content[:length])
        with pytest.raises(InputError, match="remove it"):
            load_photos(tmp_path, 16)


def test_damaged_photo_gives_pixels_or_one_sentence(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in ("jpg", "png", "webp"):
        path = tmp_path / f"a.{suffix}"
        picture().save(path, exif=exif)
        content = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            damaged = content.copy()
            where = generator.integers(0, len(content), 4)
            damaged[where] = generator.integers(0, 256, 4)
            path.write_bytes(damaged.tobytes())
            try:
                load_one(tmp_path, 16)
            except InputError as error:
                assert str(path) in str(error)
        path.unlink()


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (60_000, 60_000), (8_001, 8_000)])
def test_too_many_megapixels_are_refused_before_decoding(
    tmp_path: Path, width: int, height: int
) -> None:
    (tmp_path / "a.png").write_bytes(header_only_png(width, height))
    with pytest.raises(InputError, match=rf"a\.png.*{MAX_MEGAPIXELS}.*remove it"):
        load_photos(tmp_path, 16)


def test_refused_size_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(header_only_png(12_000, 9_000))
    with pytest.raises(InputError, match=r"12000x9000 is 108\.0 megapixels, the limit is 64"):
        load_photos(tmp_path, 16)


def test_links_inside_are_followed_and_others_refused_unopened(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside.png", tmp_path / "photos"
    picture().save(outside)
    folder.mkdir()
    picture().save(folder / "b.png")
    (folder / "a.png").symlink_to(folder / "b.png")
    found = load_photos(folder, 16)
    assert [photo.name for photo in found.photos] == ["a.png", "b.png"]
    assert "the same photo more than once: a.png, b.png" in found.notices
    (folder / "c.png").symlink_to(outside)
    with pytest.raises(InputError, match=r"c\.png: .*leads out of the folder.*cp -L"):
        load_photos(folder, 16)
    (folder / "c.png").unlink()
    (folder / "d.png").symlink_to(tmp_path / "missing.png")
    with pytest.raises(InputError, match=r"d\.png: .*broken link"):
        load_photos(folder, 16)


def test_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    """Its snapshots are links to blobs of the same cache."""
    blobs, snapshot = tmp_path / "datasets--a--b/blobs", tmp_path / "datasets--a--b/snapshots/0f"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    picture().save(blobs / "1234", "PNG")
    (snapshot / "a.png").symlink_to("../../blobs/1234")
    assert load_one(snapshot).name == "a.png"


def test_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="no ordinary file"):
        load_photos(tmp_path, 16)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"photos: No such file.*folder with 1 to 50 photos"):
        load_photos(tmp_path / "photos", 16)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").symlink_to("photos")
    with pytest.raises(InputError, match=r"photos: Too many levels .*folder with 1 to 50 photos"):
        load_photos(tmp_path / "photos", 16)


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: Not a directory; name a folder"):
        load_photos(tmp_path / "a.png", 16)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["a.png", "."])
def test_missing_permission_is_named(tmp_path: Path, name: str) -> None:
    picture().save(tmp_path / "a.png")
    mode = (tmp_path / name).stat().st_mode
    (tmp_path / name).chmod(0)
    try:
        with pytest.raises(InputError, match="Permission denied"):
            load_photos(tmp_path, 16)
    finally:
        (tmp_path / name).chmod(mode)


@pytest.mark.parametrize("names", [[], ["notes.txt", "a.raw"]])
def test_folder_without_photos_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=rf"no photos among its {len(names)} files; put 3 to 10"):
        load_photos(tmp_path, 16)


def test_more_photos_than_the_limit_are_refused(tmp_path: Path) -> None:
    picture(4, 4).save(tmp_path / "00.png")
    for number in range(1, MAX_PHOTOS):
        (tmp_path / f"{number:02}.png").hardlink_to(tmp_path / "00.png")
    assert len(load_photos(tmp_path, 4).photos) == MAX_PHOTOS
    (tmp_path / "last.png").hardlink_to(tmp_path / "00.png")
    with pytest.raises(InputError, match="51 photos, the limit is 50; move 1 of them"):
        load_photos(tmp_path, 4)


def test_name_that_is_not_utf8_is_shown_as_text(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"gr\xfcn.png"))
    assert load_one(tmp_path).name == "gr\ufffdn.png"


def test_flip_mirrors_left_and_right(tmp_path: Path) -> None:
    pixels = np.asarray(picture(8, 8))
    assert np.array_equal(flip(pixels)[:, 0], pixels[:, -1])
    assert flip(pixels).flags.c_contiguous


def test_photos_named_after_two_things_are_said(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for name in ("cat-1", "cat-2", "dog 1", "Dog2"):
        pixels = draws.integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    [said] = load_photos(tmp_path, 16).notices
    assert said.startswith("photos are named after cat, dog: one word learns one thing")
    for name in ("cat-1", "cat-2"):
        (tmp_path / f"{name}.txt").write_text("a photo of {}")
    assert load_photos(tmp_path, 16).notices == ()
