"""Tables are priced, kept and refused without torch."""

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from vitresnas.errors import FileFormatError, InputError, MismatchError, MissingLatency
from vitresnas.latency import load_tables, save_tables, select_table
from vitresnas.latency.table import LatencyTable, merge_tables

GOLDEN = Path(__file__).parents[1] / "golden" / "latency_table_1.json"


def test_a_network_costs_what_its_pieces_and_the_calibration_say(
    table, small_space, planted_milliseconds
):
    for seed in range(20):
        network = small_space.sample(Random(seed))
        assert table.milliseconds(network) == pytest.approx(planted_milliseconds(network), rel=1e-6)
        assert table.images_per_second(network) == 4000.0 / table.milliseconds(network)


def test_a_file_reads_back_as_it_was_written_and_prices_alike(table, small_space, tmp_path):
    save_tables(tmp_path / "table.json", [table])
    (again,) = load_tables(tmp_path / "table.json")
    assert again == table
    network = small_space.sample(Random(1))
    assert again.milliseconds(network) == table.milliseconds(network)


def test_a_missing_piece_is_named_with_the_command_that_adds_it(table, small_space):
    without = replace(table, entries=table.entries[1:])
    missing = str(table.entries[0][0])
    with pytest.raises(MissingLatency) as caught:
        without.timing(table.entries[0][0])
    assert missing in str(caught.value)
    assert "bench/latency_table.py --space" in str(caught.value)
    foreign = replace(small_space.largest, classes=11)
    with pytest.raises(MissingLatency, match=r"head\(.*classes=11"):
        table.milliseconds(foreign)


def test_a_new_condition_joins_the_file_and_the_same_one_replaces(make_table, table):
    batch_8 = make_table(batch_size=8)
    both = merge_tables([table], batch_8)
    assert both == (table, batch_8)
    again = make_table(driver="beads 2.0")
    assert merge_tables(both, again) == (batch_8, again)


def test_the_condition_asked_for_is_selected(make_table, table):
    tables = [table, make_table(batch_size=8), make_table(dtype="bf16"), make_table(threads=1)]
    assert select_table(tables, batch_size=8) is tables[1]
    assert select_table(tables, dtype="bf16", runtime="eager") is tables[2]
    assert select_table(tables, batch_size=4, dtype="fp32", threads=1) is tables[3]
    with pytest.raises(MismatchError, match="holds 2 conditions"):
        select_table(tables, batch_size=4, dtype="fp32")


def test_where_only_the_runtime_is_left_open_eager_is_taken(make_table, table):
    compiled = make_table(runtime="compile")
    assert select_table([compiled, table]) is table
    assert select_table([compiled, table], runtime="compile") is compiled
    with pytest.raises(MismatchError, match="holds 2 conditions"):
        select_table([make_table(runtime="compile", batch_size=8), table])


@pytest.mark.parametrize(
    "asked",
    [
        {"device": "Slide Rule"},
        {"runtime": "cuda-graph"},
        {"dtype": "fp16"},
        {"batch_size": 7},
        {"space_id": "0123456789ab"},
        {"threads": 64},
    ],
)
def test_a_foreign_table_is_refused_with_what_is_there_and_how_to_mend_it(table, asked):
    with pytest.raises(MismatchError) as caught:
        select_table([table], **asked, where="old.json")
    message = str(caught.value)
    assert str(next(iter(asked.values()))) in message
    assert "Abacus 3000" in message and "batch 4" in message
    assert "python bench/latency_table.py" in message and "--out old.json" in message


def test_a_broken_checksum_is_refused(table, tmp_path):
    path = tmp_path / "table.json"
    save_tables(path, [table])
    path.write_text(path.read_text().replace('"batch_size": 4', '"batch_size": 8'))
    with pytest.raises(FileFormatError, match="checksum"):
        load_tables(path)


def test_a_truncated_file_a_wrong_schema_and_no_file_are_refused(table, tmp_path):
    path = tmp_path / "table.json"
    save_tables(path, [table])
    path.write_text(path.read_text()[:-100])
    with pytest.raises(FileFormatError, match="not JSON"):
        load_tables(path)
    path.write_text('{"schema": "vitresnas/architecture/1"}')
    with pytest.raises(FileFormatError, match="latency_table/3"):
        load_tables(path)
    with pytest.raises(InputError, match="no file"):
        load_tables(tmp_path / "nothing.json")


def _spoil(document, path, value):
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("dtype",), "fp64", "dtype"),
        (("batch_size",), 0, "batch_size"),
        (("space",), "digits", "space"),
        (("versions",), {"torch": 2}, "versions"),
        (("entries", 0, "operation", "kind"), "pooling", "kind"),
        (("entries", 0, "samples", "host_milliseconds"), [1.0, -1.0], "above zero"),
        (("entries", 0, "samples", "host_milliseconds"), [9.0, 9.1], "quantiles"),
        (("entries", 0, "samples", "host_milliseconds"), [float("nan")], "above zero"),
        (("entries", 0, "host_milliseconds", "p10"), 1e9, "rise"),
        (("calibration", "model"), "oracle", "model"),
        (("calibration", "coefficients"), {"device": 0.0}, "coefficients"),
        (("calibration", "coefficients"), {"device": -1.0, "constant": 0.0}, "device"),
        (("validation", "kendall_tau"), -1.0, "kendall_tau"),
        (("validation", "mean_absolute_percentage_error"), 99.0, "as its pairs say"),
        (("validation", "pairs"), [], "no pairs"),
        (("validation", "pairs", 0, "id"), "0123456789ab", "id"),
        (("surprise",), 1, "surprise"),
    ],
)
def test_every_field_is_validated(table, path, value, complaint):
    document = json.loads(json.dumps(table.to_json()))
    _spoil(document, path, value)
    with pytest.raises(FileFormatError, match=complaint):
        LatencyTable.from_json(document, "spoilt.json")


def test_an_operation_or_a_condition_listed_twice_is_refused(table, tmp_path):
    document = json.loads(json.dumps(table.to_json()))
    document["entries"].append(document["entries"][0])
    with pytest.raises(FileFormatError, match="twice"):
        LatencyTable.from_json(document, "twins.json")
    with pytest.raises(FileFormatError, match="twice"):
        save_tables(tmp_path / "twins.json", [table, table])


def test_a_full_disk_leaves_the_earlier_table_untouched(table, make_table, tmp_path):
    path = tmp_path / "table.json"
    save_tables(path, [table])
    before = path.read_bytes()
    code = (
        "import sys\n"
        "from vitresnas.doors import door\n"
        "from vitresnas.latency import load_tables, save_tables\n"
        "tables = load_tables(sys.argv[1])\n"
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "sys.exit(door(lambda argv: save_tables(sys.argv[1], tables) or 0)())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "no space left" in done.stderr and "Traceback" not in done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


def test_reading_and_pricing_need_neither_torch_nor_scipy():
    code = (
        "import sys\n"
        "from random import Random\n"
        "from vitresnas.latency import load_tables, select_table\n"
        f"table = select_table(load_tables({str(GOLDEN)!r}), batch_size=32)\n"
        "assert table.milliseconds(table.validation.pairs[0].architecture) > 0\n"
        "assert not {'torch', 'scipy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_golden_file_of_schema_1_is_read_for_ever():
    (table,) = load_tables(GOLDEN)
    assert table.condition.space == "digits"
    for pair in table.validation.pairs:
        assert table.milliseconds(pair.architecture) == pytest.approx(pair.predicted)


def test_the_golden_file_of_schema_2_is_read_for_ever():
    before, now = (
        load_tables(GOLDEN.with_name(f"latency_table_{version}.json")) for version in (2, 3)
    )
    assert [table.compared for table in before] == [(), ()]
    assert before == (replace(now[0], compared=()), now[1])


def test_the_golden_file_of_schema_3_is_read_and_written_again(tmp_path):
    golden = GOLDEN.with_name("latency_table_3.json")
    tables = load_tables(golden)
    full, bare = tables
    assert [str(model) for model in full.compared] == [
        "deit_tiny_patch16_224 (224 pixels, 1,000 classes): 196 images/s (186 to 199)",
        "resnet18 (32 pixels, 1,000 classes): 1,778 images/s (1,600 to 2,000)",
    ]
    for pair in full.whole_networks:
        assert full.milliseconds(pair.architecture) == pytest.approx(pair.predicted)
    assert full.drift and full.drift.stretches and full.drift.repeated == 7
    assert full.memory and full.energy and full.telemetry and full.transfer
    assert full.joules_per_image(full.validation.pairs[0].architecture) > 0.001
    assert not (bare.drift or bare.memory or bare.energy or bare.telemetry or bare.transfer)
    save_tables(tmp_path / "again.json", tables)
    assert (tmp_path / "again.json").read_bytes() == golden.read_bytes()


def test_an_upgraded_table_lacks_only_what_was_not_measured_then(tmp_path):
    (table,) = load_tables(GOLDEN)
    assert table.drift is None and table.memory is None and table.calibration_networks is None
    save_tables(tmp_path / "upgraded.json", [table])
    assert load_tables(tmp_path / "upgraded.json") == (table,)
    assert json.loads((tmp_path / "upgraded.json").read_text())["schema"].endswith("/3")
    with pytest.raises(InputError, match="holds no energy"):
        table.joules_per_image(table.validation.pairs[0].architecture)
