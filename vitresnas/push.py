"""A model directory to the Hugging Face hub, where timm.create_model("hf-hub:USER/NAME") reads it.

vitresnas push runs/search/model --repo USER/NAME
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError

EXPORTS = ("model.onnx", "model.pt2")  # what `vitresnas export` leaves in a directory


def push(
    directory: str | Path, repo: str, *, license: str | None = None, private: bool = False
) -> str:
    """Upload a model directory as one commit; its address.

    repo: "USER/NAME", made where there is none. license: that of the weights, as the hub names it;
    it is kept in the card. Only the model goes up, not what a training run left beside it. Hub and
    account are those of HF_ENDPOINT, HF_TOKEN and `hf auth login`. Raises InputError where there is
    no account, or the hub is not reached or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is public

    from vitresnas.models.model_directory import HUB_FILES, read_card, update_card, write_hub_files

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        reason = str(error).rstrip(".")
        raise InputError(f"repo is {repo!r} ({reason}): use USER/NAME") from None
    if "/" not in repo:  # the hub would add the account; the card names where timm finds it
        raise InputError(f"repo is {repo!r}, without an account: use USER/NAME")
    exports = _exports(Path(directory), str(read_card(directory)["weights_sha256"]))
    if get_token() is None:
        raise InputError(
            "this machine is not logged in to the Hugging Face hub: run `hf auth login`, or set "
            "HF_TOKEN"
        )
    update_card(directory, {"repo": repo, **({} if license is None else {"license": license})})
    write_hub_files(directory)
    found = [*(Path(directory) / name for name in HUB_FILES), *exports]
    files = [CommitOperationAdd(path.name, path) for path in found]
    api = HfApi(library_name="vitresnas")
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        return str(api.create_commit(repo, files, commit_message="Add model").commit_url)
    except HfHubHTTPError as error:
        said = error.server_message or str(error).splitlines()[0]
        raise InputError(
            f"{api.endpoint} refused {repo} ({said.rstrip('.')}): check its name, and that your "
            "token may write there (`hf auth whoami`)"
        ) from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the hub does not accept it ({reason}): check --license") from error
    except Exception as error:  # of its HTTP library, which has changed with its versions
        raise InputError(
            f"{api.endpoint} cannot be reached ({error}): run the same command with network "
            f"access; {directory} is ready to be pushed"
        ) from error


def _exports(directory: Path, weights_sha256: str) -> list[Path]:
    """The exports of these weights. Raises InputError for one of others, an earlier model's."""
    found = [directory / name for name in EXPORTS if (directory / name).is_file()]
    for path in found:
        if weights_sha256.encode() not in path.read_bytes():  # both formats keep facts as they are
            raise InputError(
                f"{path} is not an export of the weights beside it: remove it, or repeat "
                "`vitresnas export`"
            )
    return found


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="vitresnas push",
        description="Upload a model directory, with its card, to the Hugging Face hub.",
        example="vitresnas push runs/search/model --repo USER/NAME",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a model, or a search's folder")
    parser.add_argument(
        "--repo", required=True, metavar="USER/NAME", help="created if it does not exist"
    )
    parser.add_argument("--license", help="the licence of the weights, such as apache-2.0")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    arguments = parser.parse_args(argv)
    from vitresnas.models.model_directory import find_model

    url = push(
        find_model(arguments.directory),
        arguments.repo,
        license=arguments.license,
        private=arguments.private,
    )
    say(f"pushed to {arguments.repo}: {url}")
    if arguments.json:
        print_json({"repo": arguments.repo, "commit": url})
    return 0


if __name__ == "__main__":
    sys.exit(main())
