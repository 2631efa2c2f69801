"""Files named like pictures: only the decoders of picture formats open them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from alignmerge_nb import cli
from alignmerge_nb.data.datasets import IMAGE_FORMATS, Item, open_image
from alignmerge_nb.encoders.specs import encoder_spec
from alignmerge_nb.features import encode

POSTSCRIPT = (
    "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%Pages: 1\n%%EndComments\n"
    "(MARK) (w) file closefile\nshowpage\n%%EOF\n"
)
FOREIGN = {
    "eps": POSTSCRIPT.encode(),
    "ps": POSTSCRIPT.replace(" EPSF-3.0", "").encode(),
    "pdf": b"%PDF-1.4\n1 0 obj <<>> endobj\ntrailer <<>>\n%%EOF\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "html": b"<html></html>",
    "xpm": b'/* XPM */\nstatic char *a[] = {"1 1 1 1", "a c #fff", "a"};\n',
    "ppm": b"P6 1 1 255\n\0\0\0",
    "fits": b"SIMPLE  =                    T",
    "wmf": b"\xd7\xcd\xc6\x9a\0\0" + b"\0" * 60,
}


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch) -> Path:
    "A stand-in for Ghostscript, first on the path, that leaves a mark when it is started."
    mark, program = tmp_path / "started", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # Pillow looks once
    return mark


@pytest.mark.parametrize("ending", sorted(cli.PICTURES))
@pytest.mark.parametrize("kind", FOREIGN)
def test_no_other_decoder_sees_a_picture(
    tmp_path: Path, ghostscript: Path, kind: str, ending: str
) -> None:
    path = tmp_path / f"picture{ending}"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(UnidentifiedImageError):
        open_image(path).load()
    assert not ghostscript.exists()


def test_the_stand_in_would_notice(tmp_path: Path, ghostscript: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_text(POSTSCRIPT)
    with pytest.raises((OSError, subprocess.CalledProcessError)):
        Image.open(path).load()
    assert ghostscript.exists()


def test_encoding_leaves_postscript_out_and_says_so(tmp_path: Path, ghostscript: Path) -> None:
    (tmp_path / "a.png").write_text(POSTSCRIPT)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "b.png")
    items = [Item(name, tmp_path / f"{name}.png", (), "") for name in "ab"]
    with pytest.warns(UserWarning, match="1 of 2 images"):
        x = encode(encoder_spec("efficientnet-lite0", "random"), items, size=32, home=tmp_path)
    assert x.ids == ("b",)
    assert [name for name, _ in x.skipped] == ["a"]
    assert "cannot identify" in dict(x.skipped)["a"]
    assert not ghostscript.exists() and not (tmp_path / "MARK").exists()


@pytest.mark.parametrize("form", IMAGE_FORMATS)
def test_every_format_is_read(tmp_path: Path, form: str) -> None:
    path = tmp_path / "picture"
    Image.new("RGB", (5, 4), "red").save(path, form)
    with open_image(path) as picture:
        assert picture.convert("RGB").size == (5, 4) and picture.format == form


def test_no_picture_is_opened_elsewhere() -> None:
    root = Path(__file__).resolve().parent.parent
    places = [
        path.name
        for folder in ("alignmerge_nb", "data_scripts", "tools")
        for path in (root / folder).rglob("*.py")
        if "Image.open(" in path.read_text()
    ]
    assert places == ["datasets.py"]
