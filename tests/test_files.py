import json
import math
import os
import stat
import subprocess
import sys
import textwrap

import pytest

from vitresnas.errors import FileFormatError, InputError, StorageError
from vitresnas.files import (
    Fields,
    append_line,
    atomic_path,
    atomic_write,
    digest,
    from_text,
    read_json,
    read_lines,
    to_text,
    write_json,
)

PAYLOAD = {"zeta": [1, 2.5, None, "é"], "alpha": {"b": True, "a": {}}}


def test_a_document_begins_with_its_schema_and_sorts_the_other_keys(tmp_path):
    write_json(tmp_path / "x.json", "example", PAYLOAD)
    text = (tmp_path / "x.json").read_text()
    assert text.splitlines()[1].strip() == '"schema": "vitresnas/example/1",'
    assert list(json.loads(text)) == ["schema", "alpha", "checksum", "zeta"]
    assert list(json.loads(text)["alpha"]) == ["a", "b"]
    assert read_json(tmp_path / "x.json", "example") == PAYLOAD


def test_versions_are_part_of_the_schema():
    with pytest.raises(FileFormatError, match=r'example/2", expected|schema .*example/2'):
        from_text(to_text("example", PAYLOAD, version=2), "example")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", r"the file is not JSON \(.*\): write it again"),
        ("[1]", "the file holds a JSON list, expected an object with a schema"),
        ("[" * 100_000, r"the file is not JSON \(.*recursion"),
        ("{}", 'has schema None, expected "vitresnas/example/1"'),
        ('{"schema": "vitresnas/other/1"}', "has schema 'vitresnas/other/1', expected"),
        ('{"schema": "vitresnas/example/1", "x": NaN}', "NaN is not a JSON number"),
        ('{"schema": "vitresnas/example/1", "x": -Infinity}', "-Infinity is not a JSON number"),
    ],
)
def test_what_is_no_document_is_refused_by_name(text, sentence):
    with pytest.raises(FileFormatError, match=sentence):
        from_text(text, "example", where="the file")


def test_a_changed_document_is_noticed_and_may_lose_its_checksum(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, "example", {"count": 7})
    document = json.loads(path.read_text())
    document["count"] = 8
    path.write_text(json.dumps(document))
    with pytest.raises(FileFormatError, match="was changed after it was written"):
        read_json(path, "example")
    del document["checksum"]
    path.write_text(json.dumps(document))
    assert read_json(path, "example") == {"count": 8}


def test_the_checksum_covers_the_schema():
    text = to_text("example", PAYLOAD).replace("vitresnas/example/1", "vitresnas/other/1")
    with pytest.raises(FileFormatError, match="checksum does not match"):
        from_text(text, "other")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*nothing.json: check the path"):
        read_json(tmp_path / "nothing.json", "example")
    with pytest.raises(FileFormatError, match="cannot read"):
        read_json(tmp_path, "example")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match=r"cannot read .*binary.json"):
        read_json(tmp_path / "binary.json", "example")


def test_callers_cannot_write_the_reserved_fields_or_numbers_that_are_none():
    with pytest.raises(ValueError, match="'checksum' is written by"):
        to_text("example", {"checksum": "x"})
    with pytest.raises(ValueError):
        to_text("example", {"loss": math.nan})


def test_the_digest_ignores_the_order_of_keys_and_nothing_else():
    assert digest({"a": 1, "b": (2, 3)}) == digest({"b": [2, 3], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5}) != digest({"a": "1.5"})


# Writes


def test_a_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "folder" / "x.txt"
    atomic_write(path, b"old, and longer")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.txt"]


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    atomic_write(path, b"old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("half way")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def test_written_files_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        atomic_write(tmp_path / "x.txt", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.txt").stat().st_mode) == 0o644


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "x.txt", tmp_path, tmp_path / ("n" * 300)):
        with pytest.raises(StorageError, match=r"cannot write .*choose a folder you may write to"):
            atomic_write(path, b"")


FULL_DISK = """
    import resource, sys
    from vitresnas.errors import StorageError
    from vitresnas.files import append_line, atomic_path, write_json
    from pathlib import Path
    from safetensors.numpy import save_file
    import numpy

    folder = Path(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    def write_weights():
        with atomic_path(folder / "w.safetensors") as temporary:
            save_file({"weight": numpy.zeros(5000)}, temporary)

    for attempt in (
        write_weights,
        lambda: write_json(folder / "x.json", "example", {"text": "long" * 5000}),
        lambda: append_line(folder / "log.jsonl", {"text": "long" * 5000}),
    ):
        try:
            attempt()
        except StorageError as error:
            print(error)
        else:
            sys.exit("the limit was not met")
"""


def test_a_full_disk_is_one_sentence_and_leaves_earlier_results(tmp_path):
    write_json(tmp_path / "x.json", "example", PAYLOAD)
    append_line(tmp_path / "log.jsonl", {"line": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    sentences = done.stdout.splitlines()
    names = ("w.safetensors", "x.json", "log.jsonl")
    for sentence, name in zip(sentences, names, strict=True):
        assert sentence.startswith(f"no space left to write {tmp_path / name}: free some space")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    append_line(tmp_path / "log.jsonl", {"line": 2})
    assert read_lines(tmp_path / "log.jsonl") == [{"line": 1}, {"line": 2}]


# Logs


def test_lines_come_back_in_order_and_a_missing_log_is_empty(tmp_path):
    log = tmp_path / "deep" / "log.jsonl"
    assert read_lines(log) == []
    for number in range(3):
        append_line(log, {"number": number, "text": "line\nbreak"})
    assert [record["number"] for record in read_lines(log)] == [0, 1, 2]


@pytest.mark.parametrize("torn", ["{", '{"number": 1', '{"number": 1}'])
def test_a_torn_last_line_is_taken_off_and_the_log_goes_on(tmp_path, torn):
    log = tmp_path / "log.jsonl"
    append_line(log, {"number": 0})
    with log.open("a") as file:
        file.write(torn)
    assert read_lines(log) == [{"number": 0}]
    append_line(log, {"number": 2})
    assert read_lines(log) == [{"number": 0}, {"number": 2}]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"number": 0}\n{"number"\n{"number": 2}\n')
    with pytest.raises(FileFormatError, match=r"line 2 of .*log.jsonl is not JSON"):
        read_lines(log)


# Fields


def test_fields_hand_out_typed_values():
    fields = Fields({"n": 3, "x": 2, "name": "a", "list": [1, 2], "raw": None}, "it")
    assert fields.integer("n") == 3
    assert fields.number("x") == 2.0 and isinstance(fields.number("x"), float)
    assert fields.text("name", choices=("a", "b")) == "a"
    assert fields.integers("list") == (1, 2)
    assert fields.take("raw") is None
    assert fields.integer("absent", default=5) == 5
    fields.done()


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (Fields.integer, 1.0, "a whole number of at least 1"),
        (Fields.integer, False, "a whole number of at least 1"),
        (Fields.number, "1", "a number"),
        (Fields.number, math.nan, "a number that is finite"),
        (Fields.number, 10**400, "a number that is finite"),
        (Fields.number, True, "a number"),
        (Fields.text, 3, "text"),
        (Fields.integers, [1, True], "a list of whole numbers"),
        (Fields.integers, 4, "a list of whole numbers"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(read, value, expected):
    with pytest.raises(FileFormatError) as caught:
        read(Fields({"field": value}, "the document"), "field")
    assert str(caught.value).startswith(f'the document: "field" is {value!r}, expected {expected}')


def test_fields_refuse_what_is_no_object_and_what_nobody_asked_for():
    with pytest.raises(FileFormatError, match=r"it is \[1\], expected an object"):
        Fields([1], "it")
    fields = Fields({"right": 1, "rihgt": 2}, "it")
    fields.integer("right")
    with pytest.raises(FileFormatError, match=r'it has the unknown field "rihgt": known .* right'):
        fields.done()
