"""The Hub: a run that is pushed there starts other runs, here against a small server of its API."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from tests.build.fake_hub import FakeHub
from tests.data.writers import write_folders
from vertebra.build import hub
from vertebra.build.backbone import pretrained_backbone
from vertebra.build.model_card import model_card
from vertebra.build.results import require_detector
from vertebra.build.trained_detector import is_detector, read_detector
from vertebra.cli import eval_backbone, push, train_backbone
from vertebra.engine.weights import load_weights
from vertebra.ground.errors import RecipeError, UserError
from vertebra.lab import matrix
from vertebra.recipes.schema_detection import DetectionRecipe

RUNS = Path(__file__).parents[1] / "old_runs"
FILES = {"model.safetensors", "config.yaml", "provenance.json", "evaluation.json", "README.md"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    constants = pytest.importorskip("huggingface_hub.constants")
    with FakeHub() as fake:
        point_to(fake.url, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", "hf_owner")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        hub._fetched.cache_clear()
        yield fake
        hub._fetched.cache_clear()


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def lose_network(monkeypatch: pytest.MonkeyPatch) -> None:
    point_to("http://127.0.0.1:9", monkeypatch)  # where nobody listens


def front_matter(readme: bytes) -> dict:
    return yaml.safe_load(readme.decode().split("---\n")[1])


def test_a_run_that_is_pushed_starts_another_which_says_from_which_commit(server, tmp_path, capsys):
    assert push.main([str(RUNS / "backbone"), "hf:me/net", "--licence", "apache-2.0"]) == 0
    assert "--weights hf:me/net" in capsys.readouterr().out
    files, commit = server.files("me/net"), server.find("me/net", "main")[0]
    assert files.keys() == FILES and not server.repositories["me/net"]["private"]
    assert all(files[name] == (RUNS / "backbone" / name).read_bytes() for name in FILES - {"README.md"})
    recipe = DetectionRecipe(backbone="r18", width=0.0625, weights="hf:me/net")
    backbone, origin = pretrained_backbone(recipe)
    wanted, _ = load_weights(RUNS / "backbone" / "model.safetensors")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in backbone.state_dict().items() if "fc" not in name)
    assert (origin["source"], origin["hub_commit"]) == ("hf:me/net", commit)

    data = write_folders(tmp_path / "data", {"ant": 6, "bee": 6}, "train", (40, 48))
    write_folders(tmp_path / "data", {"ant": 2, "bee": 2}, "val", (40, 48))
    flags = f"--backbone r18 --width 0.0625 --input.size 32 --input.resize 32 --data {data} --output {tmp_path / 'run'}"
    flags += " --solver.iterations 1 --solver.batch-size 4 --workers 0 --device cpu --weights hf:me/net"
    assert train_backbone.main(flags.split()) == 0
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["started_from"]["hub_commit"] == commit

    seen = tmp_path / "seen.jsonl"
    flags = (
        f"--weights hf:me/net --data {data / 'val' / 'ant'} --unlabelled --predictions {seen} --workers 0 --device cpu"
    )
    assert eval_backbone.main(flags.split()) == 0 and len(seen.read_text().splitlines()) == 2


def test_a_plan_asks_for_its_weights_before_anything_starts(server):
    push.main([str(RUNS / "backbone"), "hf:me/net"])
    recipe = DetectionRecipe(backbone="r18", width=0.0625, weights="hf:me/net")
    matrix.check(SimpleNamespace(recipe=recipe, backbone="r18", title="r18"), is_pretrained=False)
    missing = SimpleNamespace(recipe=recipe.model_copy(update={"weights": "hf:me/nt"}), backbone="r18", title="r18")
    with pytest.raises(UserError, match="hf:me/nt: there is no such repository"):
        matrix.check(missing, is_pretrained=False)


def test_a_revision_is_that_of_its_time(server, tmp_path):
    run = shutil.copytree(RUNS / "det_0", tmp_path / "det")
    push.main([str(run), "hf:me/det", "--private"])
    first = server.find("me/det", "main")[0]
    (run / "evaluation.json").write_text(json.dumps({"images": 7}))
    push.main([str(run), "hf:me/det"])
    push.main([str(run), "hf:me/det", "--revision", "tries"])
    assert server.repositories["me/det"]["private"] and server.find("me/det", "main")[0] != first
    assert b"7 images" in server.files("me/det", "tries")["README.md"]
    for revision in ("", f"@{first}", "@tries"):
        weights = f"hf:me/det{revision}"
        require_detector(weights)
        assert is_detector(weights) and read_detector(weights).class_names[0] == "arrow"
    assert hub.revision_of(f"hf:me/det@{first}") == {"hub_commit": first}


def test_without_a_network_what_was_fetched_is_used(server, monkeypatch):
    push.main([str(RUNS / "backbone"), "hf:me/net"])
    path = hub.local("hf:me/net")
    lose_network(monkeypatch)
    hub._fetched.cache_clear()
    assert hub.local("hf:me/net") == path
    with pytest.raises(UserError, match="hf:me/other: it cannot be reached, and nothing of it is kept here; check the"):
        hub.local("hf:me/other")


@pytest.mark.parametrize("run, figure", [("backbone", "top1"), ("det_0", "AP")])
def test_a_model_card_says_what_the_run_says(server, run, figure):
    push.main([str(RUNS / run), "hf:me/it", "--licence", "cc-by-4.0"])
    facts = json.loads((RUNS / run / "provenance.json").read_text())
    readme = server.files("me/it")["README.md"].decode()
    said = front_matter(readme.encode())
    assert said["library_name"] == "vertebra" and said["license"] == "cc-by-4.0" and "r18" in said["tags"]
    (result,) = said["model-index"][0]["results"]
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert values == pytest.approx({name: round(value, 2) for name, value in facts["figures"].items()})
    assert f"| {figure} | {facts['figures'][figure]:.2f} |" in readme
    for part in (facts["command"], facts["commit"], facts["protocol_hash"], facts["versions"]["torch"], "cc-by-4.0"):
        assert part in readme
    # The Hub's own reader takes it.
    from huggingface_hub import ModelCard

    (first, *_) = ModelCard(readme).data.eval_results
    assert first.task_type in ("image-classification", "object-detection")


@pytest.mark.parametrize(
    "figure, command", [("top1", "eval-backbone"), ("AP", "predict PICTURES"), ("located", "eval-loc --output DIR")]
)
def test_a_model_card_says_what_the_weights_are_for(figure, command):
    facts = {**json.loads((RUNS / "det_0" / "provenance.json").read_text()), "figures": {figure: 50.0}}
    facts["weights"]["by_others"] = {"source": "https://example.org/r18.pth", "licence": "BSD-3-Clause"}
    readme = model_card(facts, {}, "me/it@v1", None)
    assert "weights by others: https://example.org/r18.pth, licence BSD-3-Clause" in readme
    assert f"    vertebra {command} --weights hf:me/it@v1\n" in readme and "\n# it\n" in readme


@pytest.mark.parametrize(
    "weights, token, sentence",
    [
        ("hf:me/nothing", "hf_owner", "there is no such repository, or it is a private one; check the name"),
        ("hf:me/hidden", "", "there is no such repository, or it is a private one; check the name"),
        ("hf:me/net@v9", "hf_owner", "there is no such revision; name a branch, a tag or a commit after the @"),
        ("hf:me/empty", "hf_owner", "it holds no model.safetensors; name a repository that `vertebra push` has filled"),
        ("hf:me/a/b", "hf_owner", "that is no name of a repository; write hf:USER/NAME or hf:USER/NAME@REVISION"),
        ("hf:", "hf_owner", "that is no repository of the Hub; write hf:USER/NAME or hf:USER/NAME@REVISION"),
        ("hf:me/net@", "hf_owner", "that is no repository of the Hub; write hf:USER/NAME or hf:USER/NAME@REVISION"),
    ],
)
def test_what_cannot_be_fetched_is_said(server, monkeypatch, weights, token, sentence):
    push.main([str(RUNS / "backbone"), "hf:me/net"])
    push.main([str(RUNS / "backbone"), "hf:me/hidden", "--private"])
    server.repositories["me/empty"] = {"private": False, "branches": {"main": [("1" * 40, {})]}}
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError) as refusal:
        require_detector(weights)
    assert str(refusal.value).startswith(f"{weights}: {sentence}")


@pytest.mark.parametrize(
    "token, sentence",
    [
        ("", "hf:me/net: nobody is logged in; run `hf auth login`, or set HF_TOKEN"),
        ("hf_reader", "hf:me/net: its token may not do that; make one that may write, and run `hf auth login`"),
        ("hf_stranger", "hf:me/net: its token is not valid; run `hf auth login`"),
    ],
)
def test_what_cannot_be_pushed_is_said(server, monkeypatch, tmp_path, token, sentence):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError) as refusal:
        push.main([str(RUNS / "backbone"), "hf:me/net"])
    assert str(refusal.value) == sentence and server.repositories == {}


def test_a_push_without_a_network_is_said(server, monkeypatch):
    lose_network(monkeypatch)
    with pytest.raises(UserError, match=r"^hf:me/net: .*; check the network \(http"):
        push.main([str(RUNS / "backbone"), "hf:me/net"])


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["nowhere", "hf:me/net"], "nowhere: it is not a directory"),
        ([str(RUNS / "det_0"), "me/net"], "me/net: that is no repository of the Hub; write hf:USER/NAME"),
        ([str(RUNS / "det_0"), "hf:me/net@a", "--revision", "b"], "hf:me/net@a and --revision name two revisions"),
    ],
)
def test_wrong_command_lines_are_said(arguments, sentence):
    with pytest.raises((RecipeError, UserError)) as refusal:
        push.main(arguments)
    assert str(refusal.value).startswith(sentence)
