"""A child process that answers in JSON lines; its crash does not end the parent. Needs no torch itself."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from advisor.errors import AdvisorError, SourceUnavailable

START_LIMIT_S = 300.0
KILL = 9
"""SIGKILL, which Windows does not have."""
INSTALL = "pip install 'finetune-advisor[calibrate]', or in a checkout pip install '.[calibrate]'"
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment of every child: one thread, no network."""


class BurstFailed(AdvisorError):
    """A child crashed or timed out, or a library raised; the message has the last line of its output."""

    exit_code = 1


class BurstRefused(AdvisorError):
    """The child refused the job; the message says in one line why."""


class TimedOut(BurstFailed):
    """No answer in time."""


def end_of(code: int, words: str) -> str:
    """How a process ended, by its exit code (negative: the signal), with its last `words` where they may say why."""
    if code == -KILL:
        return f"was killed (signal {KILL}), most likely by the out-of-memory killer: free memory or train less at once"
    if code >= 0:
        return f"ended with code {code}: {words}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
    return f"was killed (signal {-code}, {name}): {words}"


def last_line(lines: Sequence[str]) -> str:
    """What may say why a process ended: the last line that it printed."""
    return lines[-1][:300] if lines else "it printed nothing"


class Child:
    """One process and the lines it prints. `hello` is its first one."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folders: Sequence[Path] = (),
        words: Callable[[Sequence[str]], str] = last_line,
    ) -> None:
        """Start it; `folders` are searched for modules before all others. `words`: why it ended, from its stderr.

        Raises SourceUnavailable when a library is missing, BurstFailed when it does not start.
        """
        # The child searches for modules where its parent does, whatever directory either was started from.
        search_path = os.pathsep.join([*map(str, folders), *(path for path in sys.path if path)])
        self._words = words
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            bufsize=1,
            env=os.environ | dict(environment) | {"PYTHONPATH": search_path},
            start_new_session=True,  # Ctrl-C reaches only the parent, which then ends the child
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.hello = self._next(START_LIMIT_S)
            if "missing" in self.hello:
                raise SourceUnavailable(f"calibrate needs {self.hello['missing']}, which is not installed: {INSTALL}")
        except BaseException:
            self.kill()
            raise

    def ask(
        self, job: Mapping[str, Any], limit_s: float, hear: Callable[[dict[str, Any]], bool] = lambda _: False
    ) -> dict[str, Any]:
        """Send a job and wait for its answer, at most `limit_s` seconds.

        `hear` gets every line and returns whether it was only a progress message. Raises BurstFailed, TimedOut.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already: reading gives the reason
            self._process.stdin.write(json.dumps(job) + "\n")
        end_s = time.monotonic() + limit_s
        while True:
            answer = self._next(limit_s, end_s - time.monotonic())
            if not hear(answer):
                return answer

    def kill(self) -> None:
        """End the process and those that it started, and reap it."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, KILL)  # it leads a session, hence a group, of its own
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # by which processes that a launcher started elsewhere see the end
        self._stderr.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _next(self, limit_s: float, left_s: float | None = None) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=max(0.0, limit_s if left_s is None else left_s))
        except queue.Empty:
            raise TimedOut(f"no answer within {limit_s:g} s: raise --timeout or cut the model") from None
        if not line:
            raise BurstFailed(f"the worker {end_of(self._process.wait(), self.last_words())}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def last_words(self) -> str:
        """What it wrote to stderr last."""
        self._stderr.seek(0)
        return self._words(self._stderr.read().decode(errors="replace").strip().splitlines())
