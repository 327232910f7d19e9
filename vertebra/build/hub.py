"""The Hugging Face Hub: `hf:USER/NAME[@REVISION]` names a repository's weights, and where a run is pushed.

HF_ENDPOINT names another server, HF_HOME where files are kept; who one is, `hf auth login` or HF_TOKEN says.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vertebra.ground.errors import RecipeError, UserError, first_line

PREFIX = "hf:"
WEIGHTS = "model.safetensors"

# The Hub's refusals, the narrower ones first, and what to do about each.
_SENTENCES = {
    "LocalEntryNotFoundError": ("it cannot be reached, and nothing of it is kept here", "check the network"),
    "GatedRepoError": ("its owner asks for consent to conditions", "give it on its page, then run `hf auth login`"),
    "RepositoryNotFoundError": (
        "there is no such repository, or it is a private one",
        "check the name; for a private one, run `hf auth login` first",
    ),
    "RevisionNotFoundError": ("there is no such revision", "name a branch, a tag or a commit after the @"),
    "EntryNotFoundError": (f"it holds no {WEIGHTS}", "name a repository that `vertebra push` has filled"),
    "HFValidationError": ("that is no name of a repository", "write hf:USER/NAME or hf:USER/NAME@REVISION"),
}
_STATUSES = {
    401: ("its token is not valid", "run `hf auth login`"),
    403: ("its token may not do that", "make one that may write, and run `hf auth login`"),
}


def local(value: str | Path) -> Path:
    """Return where on this machine the file is that a value of `--weights` names; of the Hub's, after fetching it.

    Raises UserError with a sentence where that cannot be had.
    """
    return _fetched(str(value)) if str(value).startswith(PREFIX) else Path(value)


def revision_of(value: str | Path) -> dict[str, str]:
    """Return which commit of its repository weights of the Hub are, for a provenance; {} for others."""
    return {"hub_commit": local(value).parent.name} if str(value).startswith(PREFIX) else {}


@functools.cache  # a command asks several times, and is to have one revision throughout
def _fetched(value: str) -> Path:
    repository, revision = parse(value)
    with _in_words(value):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repository, WEIGHTS, revision=revision, library_name="vertebra"))


def push(files: Mapping[str, Path | str], value: str, *, private: bool, message: str) -> str:
    """Upload files, by the names they get, or the text of one, as one commit; return its address.

    Makes the repository, private or not, and the revision's branch where there is none.
    """
    repository, revision = parse(value)
    with _in_words(value):
        from huggingface_hub import CommitOperationAdd, HfApi, get_token

        if get_token() is None:
            raise UserError(value, "nobody is logged in", "run `hf auth login`, or set HF_TOKEN")
        api = HfApi(library_name="vertebra")
        api.create_repo(repository, private=private, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        operations = [
            CommitOperationAdd(name, content.encode() if isinstance(content, str) else content)
            for name, content in files.items()
        ]
        commit = api.create_commit(repository, operations, commit_message=message, revision=revision)
        return str(commit.commit_url)


def parse(value: str) -> tuple[str, str | None]:
    """Split hf:USER/NAME[@REVISION]. Raises RecipeError where it is something else."""
    repository, at, revision = value.removeprefix(PREFIX).partition("@")
    if not value.startswith(PREFIX) or not repository or (at and not revision):
        raise RecipeError(value, "that is no repository of the Hub", "write hf:USER/NAME or hf:USER/NAME@REVISION")
    return repository, revision or None


@contextmanager
def _in_words(value: str) -> Iterator[None]:
    """Say what the Hub refuses in a sentence that names `value`."""
    try:
        yield
    except UserError:
        raise
    except ImportError:
        raise UserError(value, "huggingface_hub is not installed here", "run: pip install huggingface_hub") from None
    except Exception as error:  # its own, and those of the HTTP library that it happens to use
        kinds = [kind.__name__ for kind in type(error).__mro__]
        status = getattr(getattr(error, "response", None), "status_code", 0)
        place = f"check the network ({os.environ.get('HF_ENDPOINT', 'https://huggingface.co')})"
        other = _STATUSES.get(status, (first_line(error), place))
        sentence = next((_SENTENCES[kind] for kind in _SENTENCES if kind in kinds), other)
        raise UserError(value, *sentence) from error
