"""csrc/index/rows.h, which C++ and CUDA kernels share, against counting one by one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
COMPILER = shutil.which("c++") or shutil.which("g++") or ""
PROGRAM = r"""
#include <cstdio>
#include <cstdlib>
#include "index/rows.h"
using namespace vitresnas;

#define HOLDS(what) if (!(what)) { std::printf("line %d: %s\n", __LINE__, #what); std::exit(1); }

int main() {
    for (int64_t columns = 1; columns <= 80; ++columns) {
        for (int64_t width = -2; width <= columns + 2; ++width) {
            int64_t padded = 0;  // the first multiple of 16 that covers the width, or the row
            while (padded < width && padded < columns) padded += 16;
            padded = padded < columns ? padded : columns;
            HOLDS(padded_width(width, columns) == padded)
            HOLDS(written_width(width, columns, true) == padded)
            HOLDS(written_width(width, columns, false) == columns)
        }
    }
    for (int64_t groups = 1; groups <= 5; ++groups) {
        for (int64_t rows = 0; rows <= 40; ++rows) {
            for (int64_t chunks = 1; chunks <= 45; ++chunks) {
                int64_t next = 0, longest = 0;  // chunks follow each other without gap or overlap
                for (int64_t group = 0; group < groups; ++group) {
                    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                        const Span span = chunk_of_rows(group, chunk, rows, chunks);
                        HOLDS(span.last >= span.first)
                        if (span.first < span.last) HOLDS(span.first == next)
                        for (int64_t row = span.first; row < span.last; ++row, ++next) {
                            HOLDS(group_of_row(row, rows) == group)
                        }
                        const int64_t length = span.last - span.first;
                        longest = length > longest ? length : longest;
                    }
                    HOLDS(next == (group + 1) * rows)
                }
                HOLDS(longest == (rows + chunks - 1) / chunks)
            }
        }
    }
}
"""


@pytest.mark.skipif(not COMPILER, reason="there is no C++ compiler: apt install g++")
def test_rows_and_columns_are_cut_as_counting_says(tmp_path):
    source, program = tmp_path / "rows.cpp", tmp_path / "rows"
    source.write_text(PROGRAM)
    build = [COMPILER, "-O1", "-std=c++17", "-I", str(CSRC), str(source), "-o", str(program)]
    subprocess.run(build, check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
