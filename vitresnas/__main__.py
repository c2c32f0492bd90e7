"""`vitresnas <verb> ...`: the doors of all rooms under one name.

vitresnas describe tiny
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from vitresnas.doors import door
from vitresnas.errors import InputError

# verb: (the module whose main() it is, what it does)
VERBS: dict[str, tuple[str, str]] = {
    "quickstart": (
        "vitresnas.quickstart.__main__",
        "from your own images to a proven network, in the hours you give",
    ),
    "search": ("vitresnas.search.__main__", "find and prove a network for a throughput target"),
    "best": ("vitresnas.search.best", "the best network of a finished search under other bounds"),
    "train": ("vitresnas.train.__main__", "train a super-network, or one network"),
    "latency-table": ("vitresnas.latency.__main__", "measure what a space's networks cost here"),
    "verify": ("vitresnas.verify.__main__", "re-time a model directory on this device"),
    "fidelity": (
        "vitresnas.fidelity.__main__",
        "do inherited weights rank networks as training would?",
    ),
    "report": (
        "vitresnas.report.__main__",
        "show a table, a search, a training run or a quickstart as one page",
    ),
    "describe": ("vitresnas.describe", "print the stages, parameters and MACs of a network"),
    "space": ("vitresnas.space.__main__", "list, show and derive search spaces"),
    "import-official": ("vitresnas.import_official", "import a checkpoint of the paper's authors"),
    "import-timm": ("vitresnas.import_timm", "import timm's plain DeiT, as teacher or baseline"),
    "export": ("vitresnas.export.__main__", "export a model directory to torch.export or ONNX"),
    "push": ("vitresnas.push", "upload a model directory to the Hugging Face hub"),
    "cache": ("vitresnas.cache", "list or clear what searches keep for later ones"),
    "env": ("vitresnas.env", "print this machine, the versions, and which backends run here"),
}


@door
def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version"):
        from vitresnas import __version__

        print(f"vitresnas {__version__}")
        return 0
    verb = words[0].replace("_", "-")
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        raise InputError(
            f"there is no command {words[0]!r}: "
            + (f"did you mean {near[0]!r}? " if near else "")
            + f"use one of {', '.join(VERBS)}; see vitresnas --help"
        )
    module = importlib.import_module(VERBS[verb][0])
    code: int = module.main(words[1:])
    return code


def usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}}  {meaning}" for verb, (_, meaning) in VERBS.items()]
    return "\n".join(
        (
            "usage: vitresnas COMMAND ...",
            "",
            "Find the best vision transformer for a throughput on this machine, and prove it.",
            "",
            *lines,
            "",
            "vitresnas COMMAND --help tells more; --version prints the version.",
            "example:",
            "  vitresnas search --throughput-target 2x",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
