"""The child process: reads one JSON job per line, writes one JSON answer per line. Imports torch; run as `python -m`.

First it reports its environment: `{"environment": {...}}` or `{"missing": "torch"}`. Then, for each job
`{"config": {...}, "recipe": {...}, "batch": 1, "seq_len": 512}`, `{"trace": {...}}`, `{"refused": "why it
cannot run"}` or `{"failed": "what a library raised"}`. With `"shapes": [[1, 512], ...]` instead of one shape it answers
`{"shapes": {...}}`, with only a config `{"facts": {...}}`, with `"loads": true` `{"loading": {...}}`. `"rows"` is the
kind of the rows, `"pictures"` the images of each, `"evaluated"` the batch of an evaluation, `"placement"` the cards of
which one is traced. `"code"` is the folder of a model whose own Python code the user has asked to run.
Whatever libraries print goes to stderr: standard output carries only answers.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from advisor.costs.micro_batches import MicroBatch
from advisor.errors import AdvisorError
from advisor.specs import Picture, Placement, Recipe
from calibrate.measurement import Environment, Trace

if TYPE_CHECKING:
    from calibrate.worker.prepared import Prepared


def environment() -> Environment:
    """Versions of the libraries that the step uses."""
    return Environment(
        torch=version("torch"),
        transformers=version("transformers"),
        peft=version("peft"),
        bitsandbytes=version("bitsandbytes"),
        accelerate=version("accelerate"),
        python=platform.python_version(),
        platform=platform.platform(),
    )


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """The answer to one job."""
    from calibrate.worker.dryrun import trace_step
    from calibrate.worker.prepared import model_facts

    code = job.get("code", "")
    try:
        if "recipe" not in job:
            return {"facts": model_facts(job["config"], code).model_dump(mode="json")}
        recipe = Recipe.model_validate(job["recipe"])
        if "loads" in job:
            from calibrate.worker.loading import traced_loading

            return {"loading": traced_loading(job["config"], recipe).model_dump()}
        if "shapes" in job:
            prepared = _prepared(json.dumps(job["config"]), recipe, code)
            return {"shapes": prepared.shapes([(b, s) for b, s in job["shapes"]]).model_dump(mode="json")}
        if "placement" in job:
            return {"trace": _rank(job, recipe, code).model_dump(mode="json", exclude={"census", "events"})}
        evaluated = MicroBatch(*job["evaluated"]) if job.get("evaluated") else None
        shape = (job["batch"], job["seq_len"])
        rows, pictures = job.get("rows", "full"), tuple(map(Picture.model_validate, job.get("pictures", ())))
        given = {"code": code, "rows": rows, "evaluated": evaluated, "pictures": pictures}
        trace = trace_step(job["config"], recipe, *shape, **given)
    except AdvisorError as error:
        return {"refused": str(error)}
    except Exception as error:  # raised by a library: it fails this job, not the process
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {"trace": trace.model_dump(mode="json", exclude={"census", "events"})}


def _rank(job: Mapping[str, Any], recipe: Recipe, code: str) -> Trace:
    """The step of one of several cards."""
    from calibrate.worker.rank_trace import trace_rank

    placement = Placement.model_validate(job["placement"])
    shape = (job["batch"], job["seq_len"])
    return trace_rank(job["config"], recipe, placement, *shape, rows=job.get("rows", "full"), code=code)


@lru_cache(maxsize=1)
def _prepared(config: str, recipe: Recipe, code: str) -> Prepared:
    """The last model, which the next job is likely to use again."""
    from calibrate.worker.prepared import Prepared

    return Prepared(json.loads(config), recipe, code)


def main() -> None:
    """Answer jobs until standard input ends."""
    reply = claim_stdout()
    try:
        from calibrate.worker import prepared  # noqa: F401 - now, so that a missing library is known before the first job

        reply({"environment": environment().model_dump()})
    except ImportError as error:
        reply({"missing": error.name or str(error)})
        return
    for line in sys.stdin:
        reply(answer(json.loads(line)))


def claim_stdout() -> Callable[[Mapping[str, Any]], None]:
    """The function that writes an answer to standard output; everything else that is printed goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(message: Mapping[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    return reply


if __name__ == "__main__":
    main()
