"""The table of shares of jobs, from made-up cases."""

from __future__ import annotations

from advisor.specs import Recipe, Workload
from benchmarks.job_fragmentation import Case, Kind, coverage, table

PLAIN: Kind = (False, False, True)
FULL: Kind = (True, False, True)


def _case(model: str, kind: Kind, share: float) -> Case:
    return Case(model, Recipe(method="lora"), Workload(), kind, share, share / 2, share / 4)


def test_table_has_the_spread_of_each_kind_and_figure() -> None:
    found = table([_case("a", PLAIN, share) for share in (0.1, 0.2, 0.9)] + [_case("a", FULL, 0.8)])
    assert found[PLAIN, "reserved"] == (0.1, 0.2, 0.9)
    assert found[FULL, "expandable"] == (0.2, 0.2, 0.2)
    assert len(found) == 6


def test_coverage_asks_the_other_models() -> None:
    cases = [_case("a", PLAIN, 0.1), _case("a", PLAIN, 0.3), _case("b", PLAIN, 0.2), _case("b", FULL, 9.0)]
    # a's cases are outside of b's one share, b's is inside a's two; no other model has the full case
    assert coverage(cases, "reserved") == 1 / 3
