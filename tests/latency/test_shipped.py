"""Tables that come with the project: found by a device's name, and told apart from this one."""

import shutil
from dataclasses import replace

import pytest

from vitresnas.errors import FileFormatError, InputError
from vitresnas.latency import save_tables
from vitresnas.latency.difference import Difference, differences, in_words
from vitresnas.latency.shipped import RESULTS, find_tables, shipped_devices
from vitresnas.space import load_space


@pytest.fixture(scope="module")
def root(tmp_path_factory, table):
    """Two devices, one of them with two files."""

    def other(**changes):
        return replace(table, condition=replace(table.condition, **changes))

    root = tmp_path_factory.mktemp("results")
    save_tables(root / "abacus" / "latency_table_small.json", [table, other(batch_size=1)])
    save_tables(root / "abacus" / "latency_table_other.json", [other(dtype="bf16")])
    save_tables(root / "slide-rule" / "latency_table.json", [other(device="Rule 5")])
    (root / "empty").mkdir()
    return root


@pytest.mark.parametrize("device", shipped_devices())
def test_every_shipped_table_is_readable_and_prices_its_space(device):
    for table in find_tables(device).tables:
        space = load_space(table.condition.space)
        assert table.milliseconds(space.largest) > table.milliseconds(space.smallest) > 0
        assert table.environment


def test_what_is_shipped_is_what_was_measured():
    assert "cpu-xeon-2core" in shipped_devices()
    assert RESULTS.samefile(RESULTS.parents[1] / "bench" / "results") or not RESULTS.is_symlink()


def test_a_device_stands_for_every_condition_measured_on_it(root):
    found = find_tables("abacus", root)
    assert found.shipped and "abacus" in found.where
    batches = {(one.condition.dtype, one.condition.batch_size) for one in found.tables}
    assert batches == {("fp32", 4), ("fp32", 1), ("bf16", 4)}
    assert shipped_devices(root) == ("abacus", "slide-rule")


def test_a_file_is_a_file_whatever_its_name(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(root / "slide-rule" / "latency_table.json", "mine")
    found = find_tables("mine", root)
    assert not found.shipped and found.tables[0].condition.device == "Rule 5"
    with pytest.raises(InputError, match="no file nowhere"):
        find_tables("nowhere.json", root)


def test_an_unknown_name_lists_the_devices_with_what_was_measured(root):
    with pytest.raises(InputError) as caught:
        find_tables("h200", root)
    complaint = str(caught.value)
    assert "'h200'" in complaint and "abacus (space small-test bf16 batch 4 eager" in complaint
    assert "slide-rule (" in complaint and "empty" not in complaint
    with pytest.raises(InputError, match="there is none in"):
        find_tables("h200", root / "empty")


def test_a_damaged_shipped_file_is_told_and_hides_no_other(root, tmp_path):
    root = shutil.copytree(root, tmp_path / "results")
    (root / "abacus" / "latency_table_other.json").write_text("{")
    with pytest.raises(FileFormatError, match="latency_table_other"):
        find_tables("abacus", root)
    with pytest.raises(InputError, match=r"abacus \(damaged.*slide-rule \(space"):
        find_tables("h200", root)


def test_the_difference_names_every_field_that_is_otherwise_here(table):
    there = table.condition
    here = {name: getattr(there, name) for name in ("device", "threads", "backend", "versions")}
    assert differences(table, here, {}) == ()
    here |= {"device": "Slide rule", "versions": (("torch", "2.12"), ("onnxruntime", "1.0"))}
    found = differences(table, here, {"triton": "3.6"})
    assert found == (
        Difference("device", "Abacus 3000", "Slide rule"),
        Difference("versions.torch", "2.11", "2.12"),
    )
    assert in_words(found) == (
        "device Abacus 3000 there and Slide rule here, torch 2.11 there and 2.12 here"
    )
    here["versions"] = ()
    assert "torch 2.11 there and none here" in in_words(differences(table, here, {}))


def test_a_difference_reads_back_and_refuses_what_no_environment_holds():
    found = Difference("threads", 2, None)
    assert Difference.from_json(found.to_json(), "here") == found
    with pytest.raises(FileFormatError, match="whole number"):
        Difference.from_json({**found.to_json(), "table": 1.5}, "here")
