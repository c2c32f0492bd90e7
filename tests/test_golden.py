"""Files of every schema version that was ever written must stay readable, for ever.

tests/golden/<kind>_<version>.json; a change of a schema is a new number, a new golden file and an
upgrade function, never an edit of these.
"""

import json
from pathlib import Path

import pytest

from vitresnas.files import from_text, read_json, write_json
from vitresnas.quickstart.result import QuickstartResult
from vitresnas.search.result import SearchResult
from vitresnas.space import SPACES, Architecture, SearchSpace
from vitresnas.train.result import TrainingResult

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


def test_there_are_golden_files():
    assert {"architecture_1", "search_space_1"} <= {path.stem for path in GOLDEN}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_schema_and_checksum_hold(path):
    kind, _, version = path.stem.rpartition("_")
    text = path.read_text(encoding="utf-8")
    assert "checksum" in json.loads(text)
    assert from_text(text, kind, int(version), where=path.name)


def test_the_golden_architecture_is_this_network(tmp_path):
    path = Path(__file__).parent / "golden" / "architecture_1.json"
    network = Architecture.load(path)
    assert network.id == "528be8b01f9a"
    assert network in SPACES["digits"] and network.depth == 9
    network.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_the_golden_space_is_digits(tmp_path):
    path = Path(__file__).parent / "golden" / "search_space_1.json"
    space = SearchSpace.load(path)
    assert space == SPACES["digits"] and space.id == "dbe4ac09d364"
    space.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_the_golden_search_of_schema_1_is_read_for_ever():
    result = SearchResult.load(Path(__file__).parent / "golden" / "search_result_1.json")
    assert result.verdict == "met" and result.best.speed and result.best.speed.samples == 40
    assert not result.best.checks and not result.history[0].costs


def test_the_golden_search_of_schema_2_is_read_for_ever():
    result = SearchResult.load(Path(__file__).parent / "golden" / "search_result_2.json")
    assert result.compared == () and result.table_difference == ()
    assert [check.verdict for check in result.best.checks] == ["met", "met", "unproven"]
    assert result.history[0].cost("peak_memory") == 1.5e6 and result.per_class["names"]


def test_the_golden_search_of_schema_3_is_read_for_ever():
    result = SearchResult.load(Path(__file__).parent / "golden" / "search_result_3.json")
    assert result.fine_tuned == ()
    timed, untimed = result.compared
    assert timed.model.label == "deit_tiny_patch16_224@224" and timed.speed
    assert untimed.images_per_second is None
    fields = [found.field for found in result.table_difference]
    assert fields == ["device", "threads", "versions.cuda"]


def test_the_golden_search_of_schema_4_is_read_for_ever():
    result = SearchResult.load(Path(__file__).parent / "golden" / "search_result_4.json")
    assert [found.id for found in result.fine_tuned] == [result.best.candidate.id]
    assert result.fine_tuned[0].score.accuracy == 0.99


def test_the_golden_search_of_schema_5_is_read_and_written_again(tmp_path):
    path = Path(__file__).parent / "golden" / "search_result_5.json"
    result = SearchResult.load(path)
    assert result.verdict == result.best.verdict == "undecided"
    result.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_what_schema_4_called_missed_is_undecided_where_the_interval_holds_the_bound(tmp_path):
    path = Path(__file__).parent / "golden" / "search_result_5.json"
    document = read_json(path, "search_result", 5)
    for old in (document, document["best"]["checks"][0]):
        old["verdict"] = "missed"
    write_json(tmp_path / "old.json", "search_result", document, 4)
    assert SearchResult.load(tmp_path / "old.json") == SearchResult.load(path)


def test_the_golden_quickstart_of_schema_1_is_read_for_ever(tmp_path):
    golden = Path(__file__).parent / "golden" / "quickstart_result_1.json"
    (tmp_path / "quickstart_result.json").write_bytes(golden.read_bytes())
    result = QuickstartResult.load(tmp_path)
    assert result is not None and not result.classes
    assert any("accuracy 0.9667 (0.9500 before retraining)" in line for line in result.lines())


def test_the_golden_quickstart_of_schema_2_is_read_and_written_again(tmp_path):
    golden = Path(__file__).parent / "golden" / "quickstart_result_2.json"
    (tmp_path / "quickstart_result.json").write_bytes(golden.read_bytes())
    result = QuickstartResult.load(tmp_path)
    assert result is not None
    result.save(tmp_path)
    assert (tmp_path / "quickstart_result.json").read_bytes() == golden.read_bytes()
    told = "\n".join(result.lines())
    assert told.startswith("undecided: 2x") and "met in the search: 2,395 images/s" in told
    assert "what to do" in told and "1.988 to 2.042" in told
    assert "mean 0.9500 of 2 classes, worst first: dog (0.90 of 20), cat (1.00 of 30)" in told


def test_golden_training_results_are_read_for_ever_and_the_newest_is_written_again(tmp_path):
    for version in (1, 2):
        golden = Path(__file__).parent / "golden" / f"training_result_{version}.json"
        (tmp_path / "training_result.json").write_bytes(golden.read_bytes())
        result = TrainingResult.load(tmp_path)
        assert result is not None and result.test["network"]["accuracy"] == 0.95
        told = "lowest for dog: 0.9000 of 30 images"
        assert any(told in line for line in result.lines()) == (version == 2)
        result.save(tmp_path)
        again = (tmp_path / "training_result.json").read_bytes()
        assert (again == golden.read_bytes()) == (version == 2)
