"""Python for browsers: the files of npm's package `pyodide`, pinned and unchanged.

They are fetched once by `npm pack` and kept in the user's cache, or taken from a folder; each is checked against its
digest. Source: https://github.com/pyodide/pyodide, Mozilla Public License 2.0.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from advisor.errors import SourceUnavailable, shown

VERSION = "314.0.7"
SOURCE = f"https://github.com/pyodide/pyodide/tree/{VERSION}"
DIGESTS = {
    "pyodide.asm.mjs": "f7cdc8ece80678ceb712f8e65ebe6d3a83203a180c399865f49612a051693635",
    "pyodide.asm.wasm": "cc36e3cab04fdfc9a63ff13eb52eae2b911bf46c025cc7b281f394bd3de1d5e6",
    "pyodide.mjs": "6f1d60f7bf529beb300f0f47983c921d3982363640ba20af0e38efdddbc66109",
    "python_stdlib.zip": "fa1957e5777068fc4f7437f96d860ae2fbe9c19732ba06c84e004ec16dd7dd7a",
}
"""SHA-256 of the files that a page needs; the others are consoles, types, maps, and a list of packages to load."""
_FETCH_S = 300
_OTHERWISE = f"install npm, or give --runtime DIR with the files of npm's pyodide {VERSION}"


def runtime_files(folder: str | None = None) -> dict[str, bytes]:
    """The files by name: from `folder` if it is given, else from the user's cache, where npm puts them once.

    Raises SourceUnavailable for a folder without them, for other files than these, and without npm.
    """
    if folder is not None:
        given = Path(os.path.expanduser(folder))
        places = (given, given / "node_modules" / "pyodide", given / "package")
        place = next((one for one in places if (one / "pyodide.mjs").is_file()), None)
        if place is None:
            raise SourceUnavailable(
                f"--runtime {shown(folder)}: no pyodide.mjs there; give the folder of npm's pyodide"
            )
        return _read(place)
    kept = _cache() / f"pyodide-{VERSION}"
    if not all((kept / name).is_file() for name in DIGESTS):
        _fetch(kept)
    return _read(kept)


def _cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("finetune-advisor", appauthor=False)


def _read(folder: Path) -> dict[str, bytes]:
    """Raises SourceUnavailable for a file that is missing or is not the pinned one."""
    found = {}
    for name, digest in DIGESTS.items():
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            raise SourceUnavailable(f"{folder / name}: cannot be read ({error.strerror}); {_OTHERWISE}") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise SourceUnavailable(f"{folder / name}: not the file of pyodide {VERSION}; delete it, and {_OTHERWISE}")
        found[name] = data
    return found


def _fetch(kept: Path) -> None:
    """Let npm pack the files into a folder beside, and move them to their place when all are there."""
    npm = shutil.which("npm")
    if npm is None:
        raise SourceUnavailable(f"a page needs Python for browsers, and there is no npm to fetch it: {_OTHERWISE}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as draft:
            command = [npm, "pack", "--silent", "--ignore-scripts", f"pyodide@{VERSION}"]
            subprocess.run(command, cwd=draft, check=True, capture_output=True, timeout=_FETCH_S)
            whole = Path(draft, "whole")
            whole.mkdir()
            _unpack(next(Path(draft).glob("*.tgz")), whole)
            _read(whole)
            shutil.rmtree(kept, ignore_errors=True)
            os.replace(whole, kept)
    except (subprocess.SubprocessError, StopIteration, tarfile.TarError, KeyError):
        raise SourceUnavailable(f"npm could not fetch pyodide {VERSION}: check the network, or {_OTHERWISE}") from None
    except OSError as error:
        raise SourceUnavailable(f"{kept}: cannot be written ({error.strerror}); {_OTHERWISE}") from None


def _unpack(archive: Path, folder: Path) -> None:
    """The files of the page, and no other member, whatever the archive holds."""
    with tarfile.open(archive) as tar:
        for name in DIGESTS:
            member = tar.extractfile(f"package/{name}")
            if member is None:
                raise KeyError(name)
            (folder / name).write_bytes(member.read())
