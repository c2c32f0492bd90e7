"""A runtime of another package: found by its entry point, measured like ours, refused if broken."""

import subprocess
import sys

import pytest
import torch

from vitresnas.errors import InputError
from vitresnas.latency import load_tables, select_table
from vitresnas.latency.__main__ import main
from vitresnas.latency.runtime import find_runtime, runtime_names, usable_runtime
from vitresnas.models import create_model

FOLDED = '''
"""Whole networks rebuilt for inference (BatchNorm folded, fewer rows), pieces as they are."""
from vitresnas.latency.runtime import Runtime
from vitresnas.models import optimise_for_inference
from vitresnas.models.vit_res import ViTRes


def refuse(device):
    return None if device == "cpu" else f"is tried on CPUs alone and the device is {device}"


def prepare(module, x, operation):
    run = optimise_for_inference(module) if isinstance(module, ViTRes) else module
    return lambda: run(x)


RUNTIME = Runtime("folded", prepare, refuse, lambda device: {"folded": "1.2"}, "folding networks")
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """What pip leaves of a package: its module, and the metadata that names its entry points."""

    def install(source, entry="folded = folded_runtime:RUNTIME", module="folded_runtime"):
        site = tmp_path / f"site-{module}"
        info = site / f"{module}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[vitresnas.runtimes]\n{entry}\n")
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, module, raising=False)
        return site

    yield install
    sys.modules.pop("folded_runtime", None)


def test_an_installed_runtime_measures_a_table(install, small_space, tmp_path, capsys):
    install(FOLDED)
    assert runtime_names()[:2] == ("eager", "compile") and runtime_names()[-1] == "folded"
    small_space.save(tmp_path / "space.json")
    out = tmp_path / "table.json"
    common = ("--space", str(tmp_path / "space.json"), "--out", str(out), "--device", "cpu")
    options = ("--batch-size", "2", "--seconds", "0.5", "--threads", "1")
    assert main((*common, *options, "--runtime", "folded")) == 0
    assert "folding networks" in capsys.readouterr().err
    (table,) = load_tables(out)
    assert table.condition.runtime == "folded" and dict(table.condition.versions)["folded"] == "1.2"
    assert select_table([table], runtime="folded") is table


def test_a_table_is_read_where_its_runtime_is_not_installed(make_table, tmp_path):
    from vitresnas.latency import save_tables

    save_tables(tmp_path / "table.json", [make_table(runtime="tensorrt")])
    (table,) = load_tables(tmp_path / "table.json")
    assert table.condition.runtime == "tensorrt"


def test_a_plug_in_computes_and_refuses_by_its_own_reasons(install, small_space):
    install(FOLDED)
    network, images = create_model(small_space.smallest).eval(), torch.ones(2, 3, 8, 8)
    with torch.inference_mode():
        call = find_runtime("folded").prepare(network, images, None)
        torch.testing.assert_close(call(), network(images), rtol=1e-5, atol=1e-5)
    with pytest.raises(
        InputError, match=r"folded is tried on CPUs alone .*cuda:0, or use --runtime"
    ):
        usable_runtime("folded", "cuda:0")


@pytest.mark.parametrize(
    ("source", "entry", "name", "complaint"),
    [
        ("import no_such_library", "folded = folded_runtime:RUNTIME", "folded", "no_such_library"),
        ("RUNTIME = 7", "folded = folded_runtime:RUNTIME", "folded", "is 7, expected a vitresnas"),
        (FOLDED, "cooled = folded_runtime:RUNTIME", "cooled", "of the name cooled"),
        (FOLDED, "eager = folded_runtime:RUNTIME", "eager", "offered twice"),
    ],
)
def test_a_broken_plug_in_is_told_in_one_sentence(install, source, entry, name, complaint):
    install(source, entry)
    with pytest.raises(InputError, match=complaint):
        find_runtime(name)


def test_an_unknown_name_is_answered_with_those_there_are(install, capsys):
    install("import no_such_library")  # not imported, as nobody asks for it
    assert main(["--runtime", "warp"]) == 2
    error = capsys.readouterr().err
    assert "'warp': use one of eager, compile, cuda-graph, onnxruntime, folded" in error


def test_names_are_known_without_torch():
    code = (
        "import sys; from vitresnas.latency.runtime import runtime_names, runtime_name; "
        "runtime_name('compile'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
