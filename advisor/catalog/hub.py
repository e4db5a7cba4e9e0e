"""The config.json of a model on the Hugging Face Hub, through huggingface_hub if it is installed.

Only that one file is fetched and huggingface_hub's cache keeps it: a cached copy is taken without asking the network.
`huggingface_hub` is imported when it is needed and never before.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from advisor.catalog.config_json import read_config
from advisor.errors import SourceUnavailable

TIMEOUT_S = 3.0
"""Total for connecting, waiting and reading, so that a server sending one byte per second cannot stall us."""

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}\w)?"
_HUB_ID = re.compile(f"{_PART}/{_PART}", re.ASCII)
_GIVE_A_PATH = "or give a path to its config.json"


def is_hub_id(text: str) -> bool:
    """Whether `text` looks like "organization/model"."""
    refused = len(text) > 96 or text.endswith(".git") or ".." in text or "--" in text
    return not refused and _HUB_ID.fullmatch(text) is not None


def cached_file(hub_id: str, name: str) -> Path | None:
    """The file of `hub_id` in the Hub's local cache; None if it is not there. Never asks the network."""
    if not is_hub_id(hub_id):
        return None
    try:
        import huggingface_hub
    except ImportError:
        return None
    found = huggingface_hub.try_to_load_from_cache(hub_id, name)
    return Path(found) if isinstance(found, str) else None


def fetch_config(hub_id: str, *, offline: bool = False) -> Mapping[str, object]:
    """The config.json of `hub_id`, from the cache or else within `TIMEOUT_S` from the Hub.

    Raises SourceUnavailable, with the next step, or BadConfig when the Hub's file is not a config.json.
    """
    try:
        from huggingface_hub import constants
    except ImportError:
        raise SourceUnavailable(
            f"{hub_id} is not in the catalog, and asking the Hub needs a package:"
            f" `pip install huggingface_hub`, {_GIVE_A_PATH}"
        ) from None
    cached = cached_file(hub_id, "config.json")
    if cached is not None:
        return read_config(cached, f"{hub_id} config.json")
    if offline or constants.HF_HUB_OFFLINE:
        raise SourceUnavailable(
            f"{hub_id} is neither in the catalog nor in the Hub's local cache, and we are offline:"
            f" go online once (unset HF_HUB_OFFLINE), {_GIVE_A_PATH}"
        )
    answer: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()
    threading.Thread(target=_download, args=(hub_id, answer), daemon=True).start()
    try:
        found = answer.get(timeout=TIMEOUT_S)
    except queue.Empty:
        raise SourceUnavailable(
            f"{hub_id} is not in the catalog, and the Hub did not send its config.json within {TIMEOUT_S:.0f} s:"
            f" try again, {_GIVE_A_PATH}"
        ) from None
    if isinstance(found, Exception):
        raise SourceUnavailable(_explain(hub_id, found)) from None
    return read_config(Path(found), f"{hub_id} config.json")


def _download(hub_id: str, answer: queue.SimpleQueue[str | Exception]) -> None:
    """Puts the path of the downloaded file, or what went wrong, into `answer`. Runs in its own thread."""
    from huggingface_hub import hf_hub_download

    try:
        with _silence():
            answer.put(hf_hub_download(hub_id, "config.json", etag_timeout=TIMEOUT_S))
    except Exception as error:  # whatever a network, a proxy or a cache on a full disk can raise
        answer.put(error)


@contextmanager
def _silence() -> Iterator[None]:
    """No progress bar and no log line of huggingface_hub (it asks for a token on stderr)."""
    from huggingface_hub import utils

    logger = logging.getLogger("huggingface_hub")
    level, bars_were_off = logger.level, utils.are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    if not bars_were_off:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if not bars_were_off:
            utils.enable_progress_bars()


def _explain(hub_id: str, error: Exception) -> str:
    """What went wrong and what to do next."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{hub_id} is gated on the Hub: accept its terms on its page and run `hf auth login`, {_GIVE_A_PATH}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{hub_id} is neither in the catalog nor on the Hub (or it is private: `hf auth login`):"
            f" `advise models` lists the catalog, {_GIVE_A_PATH}"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"{hub_id} is not in the catalog, and the Hub cannot be reached from here:"
            f" check the network, {_GIVE_A_PATH}"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"{hub_id} has no config.json on the Hub: give the id of the model it was made from, {_GIVE_A_PATH}"
    reason = str(error).strip().splitlines()
    shown = reason[0][:120] if reason else ""
    return (
        f"{hub_id} is not in the catalog, and the Hub gave no config.json ({type(error).__name__}: {shown}):"
        f" try again later, {_GIVE_A_PATH}"
    )
