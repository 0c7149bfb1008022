"""Upload a finished model folder to a Hugging Face hub; no other stage sends anything.

model folder with its card -> repository on the hub

python -m rag_core.push --model runs/mine/model --repo_id my-name/my-reranker
"""

from __future__ import annotations

import dataclasses
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rag_core.base.errors import DataError, HubError, UsageError
from rag_core.base.flags import flag
from rag_core.base.outside_text import first_line, quoted, reason
from rag_core.base.stage import StageArgs, run_stage, show
from rag_core.engines.model_folder import check_entries, damage

# By what a model consists of, so that nothing goes along because nobody thought of it. training_args.bin has paths.
_SENT = ["*.json", "*.md", "*.txt", "*.jinja", "*.py", "*.svg", "*.model", "*.safetensors", "*.onnx", "*.onnx.data"]
_SENT += ["model.xml", "model.bin", "LICENSE*", "NOTICE*"]
_NOT_SENT = [".*", "*/.*", "checkpoint-*", "*/checkpoint-*", "*.partial/*", "*.manifest.json"]
_WEIGHTS = (".safetensors", ".onnx", ".xml")
_LOCAL_ROOTS = "home|root|Users|tmp|var|mnt|media|data|work|workspace|opt|srv|scratch|content|private|usr"
_LOCAL_PATH = re.compile(rf"(?<![\w.:/<\\)~])/(?:{_LOCAL_ROOTS})/[^\s\"'`|)\\]+")
_VOCABULARIES = ("tokenizer.json", "vocab.json")  # any word may stand there

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(StageArgs):
    """Flags of the stage; the token is no flag, but HF_TOKEN, or that of `hf auth login`."""

    model: Path = flag("trained, calibrated or exported model folder, with a README.md")
    repo_id: str = flag("OWNER/NAME on the hub; created if it does not exist")
    private: Literal["true", "false"] = flag("whether only the owner sees it", "true")
    revision: str | None = flag("branch, created if it does not exist (default: main)", None)
    dry_run: bool = flag("list what would be sent, but send nothing", False)


def run(args: Args) -> list[Path]:
    """List what is sent, send it, and print its address.

    Raises:
        PipelineError: as `_files` and `_send`, or a name that no repository can have.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # exported lazily

    try:
        validate_repo_id(args.repo_id)
    except HFValidationError as error:
        raise UsageError(first_line(error), "Pass --repo_id OWNER/NAME") from error
    if "/" not in args.repo_id:
        raise UsageError(f"--repo_id {args.repo_id!r} has no owner", "Pass --repo_id OWNER/NAME")
    for name in _files(args.model):
        logger.info("%14s bytes  %s", f"{(args.model / name).stat().st_size:,}", name)
    if not args.dry_run:
        show(_send(args))
    return []


def _files(folder: Path) -> list[str]:
    """Return what of a folder is sent.

    Raises:
        DataError: it is no finished model with a card, is damaged, or names paths of this machine.
        EngineError: it has links, whose targets would be sent.
    """
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]  # exported lazily

    if not folder.is_dir():
        raise DataError("is no folder", "Pass the folder of a model as --model", path=folder)
    if any(part.suffix == ".partial" for part in (folder.resolve(), *folder.resolve().parents)):
        raise DataError("is unfinished", "Run the stage that writes it again, to its end", path=folder)
    if not any((folder / name).is_file() for name in ("config.json", "modules.json", "export.json")):
        raise DataError(
            "is no model (no config.json, modules.json, export.json)", "Pass a model as --model", path=folder
        )
    if not (folder / "README.md").is_file():
        raise DataError("has no model card", "Write README.md", path=folder)
    check_entries(folder, is_sent=True)
    there = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files: list[str] = list(filter_repo_objects(there, allow_patterns=_SENT, ignore_patterns=_NOT_SENT))
    if not any(name.endswith(_WEIGHTS) for name in files):
        raise DataError(f"has no weights ({', '.join(_WEIGHTS)})", "Train or export the model again", path=folder)
    for name in files:
        if what := damage(folder / name):
            raise DataError(f"is damaged ({what})", "Train or export the model again", path=folder / name)
        if name.endswith((".json", ".md")) and not name.endswith(_VOCABULARIES):
            lines = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
            for number, line in enumerate(lines, start=1):
                if found := _LOCAL_PATH.search(line):
                    what = f"names a path of this machine ({found[0]})"
                    raise DataError(what, "Write the name without its folder", path=folder / name, line=number)
    if left := sorted({*there} - {*files}):
        logger.info("left out: %s", ", ".join(left))
    return files


def _send(args: Args) -> str:
    """Upload, and return the address.

    Raises:
        HubError: there is no token, or the hub refuses, or is out of reach.
        UsageError: the repository stands there with another --private.
    """
    import httpx2
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        raise HubError("HF_HUB_OFFLINE is set, so nothing may be sent", "Unset it for this command")
    api, again = HfApi(), "then run the same command again: what is there already is not sent twice"
    log_in = f"Set HF_TOKEN to one that may write to {args.repo_id}, or run: hf auth login"
    try:
        api.token = get_token()
        if not api.token:
            raise HubError(f"there is no token for {api.endpoint}", log_in)
        api.create_repo(args.repo_id, private=args.private == "true", exist_ok=True)
        private = api.model_info(args.repo_id).private
        if private != (args.private == "true"):
            what = f"{args.repo_id} exists already, and is {'private' if private else 'public'}"
            raise UsageError(what, f"Pass --private {str(private).lower()}, or another --repo_id")
        if args.revision:
            api.create_branch(args.repo_id, branch=args.revision, exist_ok=True)
        api.upload_folder(
            repo_id=args.repo_id,
            folder_path=args.model,
            revision=args.revision,
            commit_message=f"Upload {args.model.resolve().name}",
            allow_patterns=_SENT,
            ignore_patterns=_NOT_SENT,
        )
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise HubError(f"{api.endpoint} refuses the token ({status})", log_in) from error
        what = f"{api.endpoint} answers {status} ({quoted(error.server_message or 'without a reason', 300)})"
        raise HubError(what, f"Fix the cause, {again}") from error
    except ValueError as error:  # the library's word for a card whose front matter the hub does not accept
        raise HubError(quoted(str(error), 300), "Correct the front matter of README.md") from error
    except (httpx2.HTTPError, ConnectionError, TimeoutError, RuntimeError) as error:  # one for each way of sending
        what = f"{api.endpoint} is out of reach ({reason(error, 300)})"
        raise HubError(what, f"Check the network and HF_ENDPOINT, {again}") from error
    return f"{api.endpoint}/{args.repo_id}" + (f"/tree/{args.revision}" if args.revision else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
