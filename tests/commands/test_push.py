"""vitresnas push, against a hub on this machine that answers the real client."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import ModelCard

from vitresnas.export import export_model
from vitresnas.models import create_model, save_model
from vitresnas.models.model_directory import read_card
from vitresnas.push import main
from vitresnas.space import SPACES

CARD = {
    "recipe": "digits-retrain",
    "data": {"name": "digits", "id": "x"},
    "class_names": list("0123456789"),
    "test": {"network": {"accuracy": 0.9875, "negative_log_likelihood": 0.05}},
}
RIGHT = "hf_right"


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub that making a repository and committing small files need."""

    files: ClassVar[dict[str, dict[str, bytes]]] = {}
    made: ClassVar[list[dict[str, object]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {RIGHT}":
            self.answer(401, {"error": "Invalid credentials."})
        elif self.path == "/api/repos/create":
            self.made.append(json.loads(body))
            self.answer(200, {"url": f"{self.home}/somebody/net"})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer(200, {"files": [{"path": file["path"], **modes} for file in asked]})
        elif "/commit/" in self.path:
            lines = [json.loads(line)["value"] for line in body.splitlines()]
            repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            self.files[repo] = {f["path"]: base64.b64decode(f["content"]) for f in lines[1:]}
            answer = {"commitOid": "a" * 40, "commitUrl": f"{self.home}/{repo}/commit/aaa"}
            self.answer(200, {"success": True, **answer})
        else:
            self.answer(404, {"error": self.path})

    @property
    def home(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, code: int, document: dict[str, object]) -> None:
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(
        huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}"
    )
    monkeypatch.setenv("HF_TOKEN", RIGHT)
    Hub.files.clear()
    Hub.made.clear()
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    network = create_model(SPACES["digits"].smallest).eval()
    save_model(network, tmp_path / "model", CARD)
    return network


def test_what_was_pushed_is_what_timm_needs(tmp_path, model, hub, capsys):
    (tmp_path / "model" / "metrics.jsonl").write_text("{}\n")
    arguments = ["--repo", "somebody/net", "--license", "apache-2.0", "--private", "--json"]
    assert main([str(tmp_path / "model"), *arguments]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["repo"] == "somebody/net" and printed["commit"].endswith(
        "somebody/net/commit/aaa"
    )
    assert hub.made[0]["organization"] == "somebody" and hub.made[0]["visibility"] == "private"

    fresh = tmp_path / "downloaded"
    fresh.mkdir()
    for name, content in hub.files["somebody/net"].items():
        (fresh / name).write_bytes(content)
    assert sorted(path.name for path in fresh.iterdir()) == [
        "README.md",
        "architecture.json",
        "config.json",
        "model.safetensors",
        "model_card.json",
    ]
    images = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        read = timm.create_model(f"local-dir:{fresh}", pretrained=True).eval()
        assert torch.equal(read(images), model(images))
    card = ModelCard.load(fresh / "README.md")
    assert card.data.license == "apache-2.0" and card.data.library_name == "timm"
    assert 'create_model("hf-hub:somebody/net", pretrained=True)' in card.text
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == (
        "digits", "accuracy", 0.9875,
    )  # fmt: skip


def test_a_hub_that_refuses_is_one_sentence(tmp_path, model, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main([str(tmp_path / "model"), "--repo", "somebody/net"]) == 2
    printed = capsys.readouterr().err
    assert "refused somebody/net (Invalid credentials): check its name" in printed
    assert len(printed.splitlines()) == 1 and not hub.files


def test_without_network_account_or_name_nothing_happens(tmp_path, model, monkeypatch, capsys):
    directory = str(tmp_path / "model")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for token, repo, sentence in (
        (None, "somebody/net", "is not logged in to the Hugging Face hub: run `hf auth login`"),
        (RIGHT, "some body/net", "repo is 'some body/net'"),
        (RIGHT, "net", "repo is 'net', without an account: use USER/NAME"),
        (RIGHT, "somebody/net", "http://127.0.0.1:9 cannot be reached"),
    ):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        assert main([directory, "--repo", repo]) == 2
        printed = capsys.readouterr().err
        assert sentence in printed and len(printed.splitlines()) == 1
    assert read_card(directory)["repo"] == "somebody/net"


def test_exports_go_along_unless_they_are_of_other_weights(tmp_path, model, hub, capsys):
    directory = tmp_path / "model"
    arguments = [str(directory), "--repo", "somebody/net"]
    exported = export_model(directory, "torch-export")
    assert main(arguments) == 0
    assert hub.files["somebody/net"]["model.pt2"] == (directory / "model.pt2").read_bytes()
    with torch.no_grad():
        model.head.bias += 1
    save_model(model, directory, CARD)
    capsys.readouterr()
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert f"{exported.path} is not an export of the weights beside it" in printed
