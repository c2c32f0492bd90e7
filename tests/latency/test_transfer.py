"""Tables that lean on others: reuse of operations, and a new condition seeded from an old one."""

from dataclasses import replace

import numpy as np
import pytest

from vitresnas.errors import InputError, MissingLatency
from vitresnas.latency import load_tables, save_tables
from vitresnas.latency.__main__ import main
from vitresnas.latency.drift import Drift, Reading
from vitresnas.latency.request import Request
from vitresnas.latency.table import Transfer
from vitresnas.latency.timing import Timing
from vitresnas.latency.transfer import (
    beside_full,
    choose_pieces,
    choose_seed,
    reusable,
    transfer,
)
from vitresnas.space import load_space


def _anchored(table, milliseconds):
    readings = tuple(Reading(float(i), milliseconds, milliseconds) for i in range(20))
    return replace(table, drift=Drift(readings, (), 20, 0, 0))


def test_operations_of_the_same_condition_are_reused_at_the_same_speed_alone(table):
    there = _anchored(table, 0.5)
    other_space = replace(table.condition, space="other", space_id="0" * 12, image_size=99)
    assert reusable([there], other_space, 0.51) == dict(table.entries)
    assert reusable([there], other_space, 0.6) == {}
    assert reusable([there], replace(other_space, batch_size=9), 0.5) == {}
    assert reusable([there], replace(other_space, driver="beads 2.0"), 0.5) == {}
    assert reusable([table], other_space, 0.5) == {}  # of version 1: no anchor
    moved = replace(there, transfer=Transfer("another", 18, 12))
    assert reusable([moved], other_space, 0.5) == {}


def test_the_seed_is_the_most_similar_table_that_holds_everything(make_table, table, small_space):
    wanted = small_space.operations()
    bf16, batch_8 = make_table(dtype="bf16", threads=1), make_table(batch_size=8)
    asked = replace(table.condition, batch_size=16)
    assert choose_seed([bf16, batch_8], asked, wanted) is batch_8
    lame = replace(batch_8, entries=batch_8.entries[1:])
    assert choose_seed([bf16, lame], asked, wanted) is bf16
    with pytest.raises(MissingLatency, match="lacks 1 of") as refusal:
        choose_seed([lame], asked, wanted)
    assert str(batch_8.entries[0][0]) in str(refusal.value)
    assert "bench/latency_table.py" in str(refusal.value)
    with pytest.raises(InputError, match="no other measured condition"):
        choose_seed([table], table.condition, wanted)


def test_few_operations_are_chosen_of_every_kind_with_their_ends(table, small_space):
    wanted = small_space.operations()
    chosen = choose_pieces(table, wanted, 18)
    assert 10 <= len(chosen) <= 18 and set(chosen) <= set(wanted)
    assert {one.kind for one in chosen} == {one.kind for one in wanted}
    mlps = sorted((o for o in wanted if o.kind == "mlp"), key=lambda o: table.timing(o).host.p10)
    assert mlps[0] in chosen and mlps[-1] in chosen


@pytest.mark.parametrize("host_is_device", [True, False])
def test_a_planted_change_of_condition_is_found_from_eighteen_operations(table, host_is_device):
    rng, space = np.random.default_rng(0), load_space("digits")
    wanted = space.operations()
    old = {one: 0.02 + one.macs / 1e7 for one in wanted}

    def new(one):  # four times the batch: the start-up counts once, the work grows a little faster
        bonus = 1.15 if one.kind == "attention" else 1.0
        return 0.02 + bonus * 4.2 * one.macs / 1e7

    def timing(one, law):
        samples = tuple(law(one) * rng.normal(1.0, 0.005, size=6))
        return Timing(samples) if host_is_device else Timing((0.03,) * 6, samples)

    seed = replace(table, entries=tuple((one, timing(one, old.__getitem__)) for one in wanted))
    chosen = choose_pieces(seed, wanted, 18)
    found = transfer(seed, {one: timing(one, new) for one in chosen}, wanted)
    errors = [abs(found[one].device.p10 / new(one) - 1.0) for one in wanted]
    assert np.mean(errors) < 0.05 and max(errors) < 0.25
    assert (found[wanted[0]].device_samples is None) == host_is_device
    plain = [abs(4.0 * old[one] / new(one) - 1.0) for one in wanted]
    assert np.mean(errors) < 0.5 * np.mean(plain)


def test_a_transferred_table_says_so_in_its_file_and_beside_the_full_one(table, tmp_path):
    moved = replace(table, transfer=Transfer(str(table.condition), 18, 12))
    save_tables(tmp_path / "moved.json", [moved])
    (again,) = load_tables(tmp_path / "moved.json")
    assert again.transfer == moved.transfer and "18 operations" in str(again.transfer)
    beside = beside_full(moved, [table])
    assert beside and beside.transferred_percent == pytest.approx(beside.full_percent, abs=1e-3)
    assert beside_full(moved, [moved]) is None


def test_too_few_measurements_are_refused():
    with pytest.raises(InputError, match="at least 22"):
        Request(measurements=5)


def test_a_condition_is_seeded_from_another_and_full_tables_are_never_replaced(
    small_space, tmp_path, capsys
):
    small_space.save(tmp_path / "space.json")
    full, moved = tmp_path / "full.json", tmp_path / "moved.json"
    common = ["--space", str(tmp_path / "space.json"), "--device", "cpu", "--threads", "1"]
    assert main([*common, "--batch-size", "2", "--seconds", "1", "--out", str(full)]) == 0
    seeded = [*common, "--batch-size", "4", "--seconds", "1", "--seed-from", str(full)]
    assert main([*seeded, "--out", str(moved)]) == 0
    (table,) = load_tables(moved)
    assert table.transfer and 10 <= table.transfer.operations_measured <= 18
    assert {one for one, _ in table.entries} == set(small_space.operations())
    assert "transferred from" in capsys.readouterr().out
    # With the full condition in the seed file, both errors are told; it is never overwritten.
    assert main([*common, "--batch-size", "4", "--seconds", "1", "--out", str(full)]) == 0
    assert main([*seeded, "--out", str(moved), "--json"]) == 0
    capsys.readouterr()
    assert main([*seeded, "--out", str(full)]) == 2
    assert "a transfer never replaces" in capsys.readouterr().err
    assert (
        main([*common, "--batch-size", "4", "--seconds", "1", "--out", str(full), "--fresh"]) == 0
    )
    assert "reused" not in capsys.readouterr().err
