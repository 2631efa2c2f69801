"""Fetch scripts: a server that misbehaves, missing clients, and sets that are whole or absent."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import common
import fetch_coco
import fetch_emoji
import fetch_flickr30k
import fetch_gqa
import fetch_nlvr2
import fetch_openclipart
import fetch_snli_ve
import fetch_statements
import fetch_tuxpaint
import fetch_vqa2
import pytest
from common import Package, download, fetch, finish

from alignmerge_nb.core import InputError
from alignmerge_nb.data.datasets import load_dataset, write_manifest
from alignmerge_nb.data.vqa import load_statements, official_pictures
from alignmerge_nb.lab.derived import DERIVED, read_statements

ROOT = Path(__file__).parents[1]
CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    "A server of `files` on this machine; the knobs make it misbehave."

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.ranges, self.fail, self.seen = (
            {"/file.bin": CONTENT},
            None,
            True,
            0,
            [],
        )
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    "Answers GET, with ranges if the server has them, and hangs up after `cut` bytes."

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.seen.append(asked)
        if server.fail:
            server.fail -= 1
            return self.send_error(503)
        if self.path not in server.files:
            return self.send_error(404)
        content, start = (
            server.files[self.path],
            int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0,
        )
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(
            content[start:] if server.cut is None else content[start : start + server.cut]
        )
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    "A running server."
    server = Server()
    threading.Thread(
        target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}
    ).start()
    yield server
    server.shutdown()
    server.server_close()


# --- the downloader ---


def test_a_whole_file_arrives_and_is_not_fetched_twice(server, tmp_path):
    for _ in range(2):
        assert (
            download(f"{server.url}/file.bin", tmp_path / "file", DIGEST, wait=0).read_bytes()
            == CONTENT
        )
    assert server.seen == [None]


def test_a_cut_connection_is_resumed(server, tmp_path):
    server.cut = 200_000
    assert (
        download(f"{server.url}/file.bin", tmp_path / "file", DIGEST, wait=0).read_bytes()
        == CONTENT
    )
    assert server.seen == [None, "bytes=200000-", "bytes=400000-"]


def test_a_killed_download_is_resumed_by_the_next_run(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:300_000])
    assert (
        download(f"{server.url}/file.bin", tmp_path / "file", DIGEST, wait=0).read_bytes()
        == CONTENT
    )
    assert server.seen == ["bytes=300000-"]
    (tmp_path / "file").rename(tmp_path / "file.part")  # killed after the last byte
    assert (
        download(f"{server.url}/file.bin", tmp_path / "file", DIGEST, wait=0).read_bytes()
        == CONTENT
    )


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.part").write_bytes(CONTENT[:300_000])
    assert (
        download(f"{server.url}/file.bin", tmp_path / "file", DIGEST, wait=0).read_bytes()
        == CONTENT
    )


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_wrong_bytes_are_refused_and_removed(server, tmp_path, kind):
    server.files["/file.bin"] = CONTENT[::-1]
    digest = hashlib.new(kind, CONTENT).hexdigest()
    with pytest.raises(InputError, match=kind):
        download(
            f"{server.url}/file.bin",
            tmp_path / "file",
            digest if kind == "sha256" else f"md5:{digest}",
            wait=0,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_moved_file_is_named_at_once(server, tmp_path):
    with pytest.raises(InputError, match="HTTP 404"):
        download(f"{server.url}/gone.bin", tmp_path / "file", wait=0)
    assert len(server.seen) == 1


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.fail = 2
    assert (
        download(f"{server.url}/file.bin", tmp_path / "file", DIGEST, wait=0).read_bytes()
        == CONTENT
    )


def test_a_server_that_sends_nothing_is_given_up(server, tmp_path):
    server.cut = 0
    with pytest.raises(InputError, match="the connection was cut"):
        download(f"{server.url}/file.bin", tmp_path / "file", DIGEST, tries=3, wait=0)
    assert len(server.seen) == 3


def test_no_server_is_no_network(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match="no network"):
        download(f"http://127.0.0.1:{port}/file.bin", tmp_path / "file", DIGEST, tries=2, wait=0)


# --- a set is there whole or not at all ---


def archive(path: Path, files: dict[str, bytes]) -> bytes:
    "A zip of files; returns its bytes."
    with zipfile.ZipFile(path, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return path.read_bytes()


def build(folder: Path, unpacked: Path) -> dict:
    "A set of one item."
    (unpacked / "a.png").rename(folder / "a.png")
    return finish(
        folder,
        [{"id": "a", "image": "a.png", "texts": {"en": ["An a."]}, "group": "g", "licence": "MIT"}],
    )


def test_a_set_is_built_once_and_again_when_its_package_changes(server, tmp_path, capsys):
    server.files["/set.zip"] = archive(tmp_path / "set.zip", {"a.png": b"1"})
    packages = (
        Package(
            "url",
            f"{server.url}/set.zip",
            "1",
            hashlib.sha256(server.files["/set.zip"]).hexdigest(),
        ),
    )
    for _ in range(2):
        folder = fetch("emoji", packages, build, home=tmp_path / "data")
    assert len(server.seen) == 1 and "complete" in capsys.readouterr().out
    assert load_dataset("emoji", home=tmp_path / "data")[0].texts == ("An a.",)
    source = json.loads((folder / "source.json").read_text())
    assert source["items"] == 1 and source["packages"] == {packages[0].label: packages[0].digest}
    fetch("emoji", (Package("url", f"{server.url}/set.zip", "2"),), build, home=tmp_path / "data")
    assert len(server.seen) == 2 and [
        path.name for path in (tmp_path / "data").iterdir() if path.name != ".downloads"
    ] == ["emoji"]


def test_a_killed_or_failed_fetch_leaves_no_set(server, tmp_path):
    server.files["/set.zip"] = archive(tmp_path / "set.zip", {"a.png": b"1"})
    packages = (Package("url", f"{server.url}/set.zip"),)
    home = tmp_path / "data"
    (home / ".emoji.x.partial" / "new").mkdir(parents=True)  # what a killed one leaves

    def broken(folder: Path, unpacked: Path) -> dict:
        (folder / "manifest.jsonl").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("emoji", packages, broken, home=home)
    assert [path.name for path in home.iterdir()] == [".downloads"]
    (home / "emoji").mkdir()  # as if it had been made by hand, without source.json
    fetch("emoji", packages, build, home=home)
    assert load_dataset("emoji", home=home) and len(server.seen) == 1  # the download was kept


def test_two_fetches_at_once_fetch_once(server, tmp_path, capsys):
    server.files["/set.zip"] = archive(tmp_path / "set.zip", {"a.png": b"1"})
    packages = (Package("url", f"{server.url}/set.zip"),)
    started, may_end = threading.Event(), threading.Event()

    def slow(folder: Path, unpacked: Path) -> dict:
        started.set()
        assert may_end.wait(20)
        return build(folder, unpacked)

    home, failed = tmp_path / "data", []

    def run(how) -> None:
        try:
            fetch("emoji", packages, how, home=home)
        except BaseException as error:
            failed.append(error)

    first = threading.Thread(target=run, args=(slow,))
    first.start()
    assert started.wait(20)
    second = threading.Thread(target=run, args=(build,))
    second.start()
    second.join(0.5)
    assert second.is_alive()  # it waits
    may_end.set()
    first.join(20)
    second.join(20)
    said = capsys.readouterr().out
    assert not failed and len(server.seen) == 1 and "another process fetches it" in said
    assert said.count("emoji: 1 items") == 1 and "emoji: complete" in said


def test_wrong_bytes_make_no_set(server, tmp_path):
    server.files["/set.zip"] = archive(tmp_path / "set.zip", {"a.png": b"1"})
    with pytest.raises(InputError, match="sha256"):
        fetch(
            "emoji",
            (Package("url", f"{server.url}/set.zip", "1", "0" * 64),),
            build,
            home=tmp_path / "data",
        )
    assert not (tmp_path / "data/emoji").exists()


@pytest.mark.parametrize("client, command", [("npm", "npm"), ("apt", "apt-get")])
def test_a_missing_client_is_named(tmp_path, monkeypatch, client, command):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=f"no command '{command}'"):
        fetch("emoji", (Package(client, "x", "1"),), build, home=tmp_path / "data")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        common,
        "client_command",
        lambda package, folder: [
            sys.executable,
            "-c",
            "import sys; sys.exit('No matching distribution')",
        ],
    )
    with pytest.raises(InputError, match="pip:nothing 1.0 .No matching distribution"):
        fetch("emoji", (Package("pip", "nothing", "1.0"),), build, home=tmp_path)


def test_openclipart_without_rsvg_is_named_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="librsvg2-bin"):
        fetch_openclipart.run()


# --- builders on miniatures of their packages ---


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    "Files below a folder."
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def test_emoji_are_paired_by_code_sequence(tmp_path):
    renders = write(
        tmp_path / "renders",
        {f"package/assets/{code}.webp": b"" for code in ("1f600", "1f44b", "1f44b-1f3fb")},
    )

    def entries(grin, wave):
        return json.dumps(
            [
                {"hexcode": "1F600", "label": grin, "tags": ["face", "grin"], "group": 0},
                {"hexcode": "1F44B", "label": wave, "group": 1},
            ]
        )

    texts = write(
        tmp_path / "texts",
        {
            "package/en/data.json": entries("grinning face", "waving hand"),
            "package/de/data.json": entries("grinsendes Gesicht", "winkende Hand"),
            "package/meta/groups.json": '{"groups": {"0": "smileys-emotion", "1": "people-body"}}',
        },
    )
    (tmp_path / "emoji").mkdir()
    source = fetch_emoji.build(tmp_path / "emoji", renders, texts)
    assert (
        source["items"] == 2
        and source["languages"] == ["de", "en"]
        and list(source["skipped"]) == ["1f44b-1f3fb"]
    )
    wave, grin = load_dataset("emoji", home=tmp_path)
    assert (grin.texts, grin.group, wave.texts) == (
        ("grinning face: face, grin",),
        "smileys-emotion",
        ("waving hand",),
    )


def test_tuxpaint_without_rsvg_keeps_its_photographs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    stamps = {
        "animals/frog.png": b"png",
        "animals/frog.txt": "A frog.\nde.utf8=Ein Frosch.\nfr.utf8=\n",
        "space/sun.svg": "<svg/>",
        "space/sun.txt": "The sun.\n",
        "food/none.txt": "Nothing.",
    }
    package = write(
        tmp_path / "package",
        {f"{fetch_tuxpaint.ROOT}/{name}": content for name, content in stamps.items()},
    )
    (tmp_path / "tuxpaint").mkdir()
    source = fetch_tuxpaint.build(tmp_path / "tuxpaint", package)
    assert (
        source["items"] == 1
        and source["missing_tools"] == ["rsvg-convert"]
        and set(source["skipped"]) == {"space/sun", "food/none"}
        and "rsvg-convert" in source["notes"][0]
    )
    assert load_dataset("tuxpaint", "de", tmp_path)[0].texts == ("Ein Frosch.",)
    write(tmp_path, {"tuxpaint/source.json": json.dumps(source | {"packages": {}})})
    assert common.is_complete(tmp_path / "tuxpaint", ())
    monkeypatch.setattr(common.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert not common.is_complete(tmp_path / "tuxpaint", ())  # the tool is here now: make it again


@pytest.mark.parametrize("name, module", [("coco", fetch_coco), ("flickr30k", fetch_flickr30k)])
def test_coco_and_flickr30k_are_put_in_place(server, tmp_path, monkeypatch, name, module):
    sentences = [{"tokens": ["a", "dog"], "raw": "A dog.", "imgid": 0, "sentid": 0}]
    folder = "train2014" if name == "coco" else "flickr30k-images"
    entry = {
        "imgid": 0,
        "sentids": [0],
        "sentences": sentences,
        "split": "train",
        "filename": "1.jpg",
    } | ({"filepath": folder, "cocoid": 9} if name == "coco" else {})
    captions = archive(
        tmp_path / "captions.zip",
        {f"dataset_{name}.json": json.dumps({"images": [entry], "dataset": name}).encode()},
    )
    server.files |= {
        "/captions.zip": captions,
        "/train2014.zip": archive(tmp_path / "t.zip", {f"{folder}/1.jpg": b"jpg"}),
        "/val2014.zip": archive(tmp_path / "v.zip", {"val2014/2.jpg": b"jpg"}),
    }
    images = (
        [Package("url", f"{server.url}/{part}2014.zip") for part in ("train", "val")]
        if name == "coco"
        else [Package("file", str(tmp_path / "t.zip"))]
    )
    packages = (Package("url", f"{server.url}/captions.zip"), *images)
    with pytest.raises(InputError, match="1 items"):
        fetch(name, packages, module.build, home=tmp_path / "data")  # far from the whole set
    monkeypatch.setattr(module, "IMAGES", 1)
    server.cut = 100  # every connection is cut: the archives arrive in pieces
    fetch(name, packages, module.build, home=tmp_path / "data")
    assert (
        load_dataset(name, home=tmp_path / "data")[0].texts == ("A dog.",)
        and (tmp_path / "t.zip").is_file()
    )
    assert not (tmp_path / "data/.downloads" / name).exists()


def test_flickr30k_asks_for_its_photographs():
    with pytest.raises(InputError, match="--images"):
        fetch_flickr30k.run(None)


# --- statements: official files from their servers, and derived ones ---


def served(server: Server, folder: Path, name: str, files: dict[str, object]) -> Package:
    "A zip of files on the server; objects as JSON."
    content = archive(
        folder / name,
        {
            path: value if isinstance(value, bytes) else json.dumps(value).encode()
            for path, value in files.items()
        },
    )
    server.files[f"/{name}"] = content
    return Package("url", f"{server.url}/{name}")


def test_vqa2_is_put_in_place(server, tmp_path, monkeypatch):
    parts = ("train2014", "val2014")
    asked = [
        served(
            server,
            tmp_path,
            f"q_{part}.zip",
            {
                f"v2_OpenEnded_mscoco_{part}_questions.json": {
                    "questions": [{"question_id": 1, "image_id": 9, "question": "Why?"}]
                }
            },
        )
        for part in parts
    ]
    entry = {
        "question_id": 1,
        "image_id": 9,
        "multiple_choice_answer": "fun",
        "answer_type": "other",
        "answers": [{"answer": "fun"}] * 10,
    }
    given = [
        served(
            server,
            tmp_path,
            f"a_{part}.zip",
            {f"v2_mscoco_{part}_annotations.json": {"annotations": [entry]}},
        )
        for part in parts
    ]
    with pytest.raises(InputError, match="1 statements in train2014, 0 pictures missing"):
        fetch("vqa2", (*asked, *given), fetch_vqa2.build, home=tmp_path / "data")
    assert not (tmp_path / "data/vqa2").exists()
    monkeypatch.setattr(fetch_vqa2, "STATEMENTS", {"train": 1, "val": 1})
    fetch("vqa2", (*asked, *given), fetch_vqa2.build, home=tmp_path / "data")
    assert [
        load_statements("vqa2", split, tmp_path / "data")[0].images for split in ("train", "val")
    ] == [("COCO_train2014_000000000009",), ("COCO_val2014_000000000009",)]


def test_gqa_is_put_in_place(server, tmp_path, monkeypatch):
    entry = {
        "imageId": "7",
        "question": "Is it red?",
        "answer": "no",
        "types": {"structural": "verify"},
    }
    asked = served(
        server,
        tmp_path,
        "questions1.2.zip",
        {
            f"{part}_{kind}_questions.json": {"1": entry}
            for part in ("train", "val", "testdev")
            for kind in ("balanced", "all")
        },
    )
    monkeypatch.setattr(fetch_gqa, "STATEMENTS", {"train": 1, "val": 1, "test": 1})
    lacking = served(server, tmp_path, "other.zip", {"images/8.jpg": b"jpg"})
    with pytest.raises(InputError, match="1 pictures missing"):
        fetch("gqa", (asked, lacking), fetch_gqa.build, fetch_gqa.keep, home=tmp_path / "data")
    whole = served(server, tmp_path, "images.zip", {"images/7.jpg": b"jpg"})
    folder = fetch("gqa", (asked, whole), fetch_gqa.build, fetch_gqa.keep, home=tmp_path / "data")
    assert sorted(path.name for path in folder.iterdir()) == [
        "images",
        "source.json",
        "testdev_balanced_questions.json",
        "train_balanced_questions.json",
        "val_balanced_questions.json",
    ]
    assert (
        official_pictures(
            "gqa", load_statements("gqa", "test", tmp_path / "data"), tmp_path / "data"
        )[0].image.read_bytes()
        == b"jpg"
    )


def test_nlvr2_is_put_in_place_from_files_without_an_archive(server, tmp_path, monkeypatch):
    for part in ("train", "dev", "test1"):
        server.files[f"/{part}.json"] = (
            json.dumps({"identifier": f"{part}-1-0-0", "sentence": "Two dogs.", "label": "True"})
            + "\n"
        ).encode()
    archive(
        tmp_path / "images.zip",
        {
            f"images/{folder}/{part}-1-0-img{side}.png": b"png"
            for part, folder in (("train", "train/12"), ("dev", "dev"), ("test1", "test1"))
            for side in (0, 1)
        },
    )
    packages = (
        *(Package("url", f"{server.url}/{part}.json") for part in ("train", "dev", "test1")),
        Package("file", str(tmp_path / "images.zip")),
    )
    monkeypatch.setattr(fetch_nlvr2, "STATEMENTS", {"train": 1, "val": 1, "test": 1})
    fetch("nlvr2", packages, fetch_nlvr2.build, home=tmp_path / "data")
    for split in ("train", "val", "test"):
        assert (
            len(
                official_pictures(
                    "nlvr2", load_statements("nlvr2", split, tmp_path / "data"), tmp_path / "data"
                )
            )
            == 2
        )
    with pytest.raises(InputError, match="--images"):
        fetch_nlvr2.run(None)


def test_snli_ve_is_made_as_its_authors_make_it(server, tmp_path, monkeypatch):

    def row(image, label="neutral", end=".jpg#0r1n"):
        entry = {
            "pairID": f"{image}{end}",
            "gold_label": label,
            "sentence2": "They sleep.",
            "captionID": f"{image}.jpg#0",
        }
        return json.dumps(entry) + "\n"

    lines = {
        "train": row(11) + row(12, "-") + row("vg_13", end="n") + row(14) + row(15),
        "dev": row(16),
        "test": row(12, "entailment"),
    }
    snli = served(
        server,
        tmp_path,
        "snli_1.0.zip",
        {f"snli_1.0/snli_1.0_{name}.jsonl": text.encode() for name, text in lines.items()},
    )
    server.files |= {"/flickr30k_train_val.lst": b"11\n12\n16\n", "/flickr30k_test.lst": b"14\n"}
    monkeypatch.setattr(fetch_snli_ve, "DEV", 1)
    monkeypatch.setattr(fetch_snli_ve, "STATEMENTS", {"train": 2, "val": 1, "test": 1})
    fetch(
        "snli_ve",
        (
            snli,
            *(
                Package("url", f"{server.url}/flickr30k_{name}.lst")
                for name in ("train_val", "test")
            ),
        ),
        fetch_snli_ve.build,
        home=tmp_path / "data",
    )
    assert {
        split: [one.images[0] for one in load_statements("snli_ve", split, tmp_path / "data")]
        for split in ("train", "val", "test")
    } == {"train": ["11", "12"], "val": ["16"], "test": ["14"]}


def test_derived_statements_are_made_once_and_again_when_a_set_changes(
    tmp_path, monkeypatch, capsys
):
    with pytest.raises(InputError, match="fetch_easyvqa.py"):
        fetch_statements.run(tmp_path)
    rows = [
        {
            "id": f"{split}/{n}",
            "image": "x.png",
            "texts": {},
            "group": "easyvqa",
            "licence": "MIT",
            "split": split,
            "questions": [
                {"question": "what color is the shape?", "answer": colour},
                {"question": "what shape is present?", "answer": shape},
            ],
        }
        for split, each in (("train", 40), ("test", 6))
        for n, (colour, shape, _) in enumerate(
            (c, s, k)
            for c in ("red", "blue", "teal", "gray", "black", "brown", "green", "yellow")
            for s in ("circle", "triangle", "rectangle")
            for k in range(each)
        )
    ]
    (tmp_path / "easyvqa").mkdir()
    (tmp_path / "easyvqa/x.png").touch()
    write_manifest(tmp_path / "easyvqa/manifest.jsonl", rows)
    monkeypatch.setattr(
        fetch_statements,
        "DERIVED",
        {name: DERIVED[name] for name in ("nlvr_shapes", "entail_shapes")},
    )
    for _ in range(2):
        fetch_statements.run(tmp_path)
    first = {
        name: (tmp_path / name / "statements.jsonl").read_bytes()
        for name in ("nlvr_shapes", "entail_shapes")
    }
    assert capsys.readouterr().out.count("complete") == 2 and len(
        read_statements(tmp_path / "nlvr_shapes/statements.jsonl")
    ) == 8 * (600 + 60 + 150)
    write_manifest(tmp_path / "easyvqa/manifest.jsonl", rows[:-1])
    fetch_statements.run(tmp_path)
    assert (
        "complete" not in capsys.readouterr().out
        and {name: (tmp_path / name / "statements.jsonl").read_bytes() for name in first} != first
    )
