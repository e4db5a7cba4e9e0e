from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calibrate.timeline import Allocation, Timeline


def allocation(size_bytes: int, module: str = "", category: str = "forward") -> Allocation:
    return Allocation(size_bytes, category, "aten.mm", module, (size_bytes,), "float32")


def by_hand() -> Timeline:
    """Weights of 100; forward makes 30 and 50, drops 30; backward makes 20, drops everything it can."""
    timeline = Timeline()
    timeline.allocations = [
        allocation(100, "head", "base_weights"),
        allocation(30, "layers.0.mlp"),
        allocation(50, "layers.1.mlp"),
        allocation(20, "layers.1.mlp", "backward"),
    ]
    timeline.moves = [0]
    timeline.mark("forward")
    timeline.moves += [1, 2, -2]
    timeline.mark("backward")
    timeline.moves += [3, -3, -4]
    return timeline


def test_peaks_of_phases() -> None:
    forward, backward = by_hand().phase_peaks()
    assert (forward.begin_bytes, forward.peak_bytes, forward.end_bytes) == (100, 180, 150)
    assert (forward.op, forward.module) == ("aten.mm", "layers.1.mlp")
    assert (backward.begin_bytes, backward.peak_bytes, backward.end_bytes) == (150, 170, 100)


def test_phase_that_never_rises_names_no_operation() -> None:
    timeline = by_hand()
    timeline.mark("optimizer")
    optimizer = timeline.phase_peaks()[-1]
    assert (optimizer.peak_bytes, optimizer.op) == (100, "")


def test_static_bytes_stop_at_the_first_phase() -> None:
    static = by_hand().static_bytes()
    assert static["base_weights"] == 100
    assert sum(static.values()) == 100


def test_census_joins_layers() -> None:
    timeline = Timeline()
    for layer in (0, 1, 2, 5):
        timeline.moves.append(len(timeline.allocations))
        timeline.allocations.append(allocation(8, f"model.layers.{layer}.norm"))
    (row,) = timeline.census(3)
    assert (row.module, row.layers, row.count, row.bytes) == ("model.layers.*.norm", "0-2", 3, 24)
    (row,) = timeline.census(4)
    assert row.layers == "0,1,2,5"


def test_census_keeps_shapes_apart() -> None:
    timeline = Timeline(allocations=[allocation(8, "norm"), allocation(4, "norm")], moves=[0, 1])
    assert [row.shape for row in timeline.census(2)] == [(8,), (4,)]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20), st.randoms())
def test_census_adds_up_to_live_bytes_everywhere(sizes: list[int], random: object) -> None:
    timeline = Timeline(allocations=[allocation(size) for size in sizes])
    timeline.mark("forward")
    alive: list[int] = []
    for index in range(len(sizes)):
        timeline.moves.append(index)
        alive.append(index)
        if random.random() < 0.5:  # type: ignore[attr-defined]
            timeline.moves.append(-alive.pop(random.randrange(len(alive))) - 1)  # type: ignore[attr-defined]
    for moves in range(len(timeline.moves) + 1):
        assert sum(row.bytes for row in timeline.census(moves)) == timeline.live_bytes(moves)
    (peak,) = timeline.phase_peaks()
    assert peak.peak_bytes == max(timeline.live_bytes(moves) for moves in range(len(timeline.moves) + 1))
    assert timeline.live_bytes(peak.move) == peak.peak_bytes


def test_events_are_signed_and_carry_their_phase() -> None:
    events = list(by_hand().events())
    assert [event.bytes for event in events] == [30, 50, -30, 20, -50, -20]
    assert [event.phase for event in events] == ["forward"] * 3 + ["backward"] * 3
