"""Records as tables that read well on a terminal and are Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


def tables(records: Sequence[Record]) -> str:
    """Writes run times, work, peers, the loop, scaling, the loader and checkpoints: a table of each with rows."""
    programs = [r for r in records if "flops" in r]
    parts = [
        _table("Programs", PROGRAMS, [_program(r) for r in programs]),
        _table("Work and memory", WORK, [_work(r) for r in programs]),
        _table("Beside PyTorch", PEERS, [row for r in programs for row in _peers(r)]),
        _table("The sampling loop", LOOP, [_loop(r) for r in programs if "overhead" in r]),
        _table("Several devices", SCALING, _scaling(programs)),
        _table("Data loader", LOADER, [_loader(r) for r in records if r["name"] == "loader" and "skipped" not in r]),
        _table("Checkpoints", CHECKPOINT, [_checkpoint(r) for r in records if r["name"] == "checkpoint"]),
    ]
    notes = [f"{r['config']}: no {r['name']}: {r['skipped']}" for r in records if "skipped" in r]
    notes += [f"{r['config']}: {r['no_peer']}" for r in programs if r["no_peer"]]
    notes += [
        f"{r['config']}: {r['name']}: no FLOPs of {', '.join(r['uncounted'])}" for r in programs if r["uncounted"]
    ]
    return "\n\n".join([part for part in parts if part] + notes) + "\n"


def machine(facts: Mapping[str, Any]) -> str:
    """Returns the machine in one line."""
    torch = f", torch {facts['torch']}" if facts.get("torch") else ""
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_bytes'] / 2**30:.0f} GiB; {facts['devices']} x "
        f"{facts['device']} ({facts['platform']}); {facts['os']}; Python {facts['python']}, jax {facts['jax']}{torch}; "
        f"{facts['date']}"
    )


PROGRAMS = (
    "config", "program", "batch", "devices", "dtype", "compile", "run (quartiles)", "images/s/device", "recompiled",
)  # fmt: skip
WORK = (
    "config", "program", "batch", "devices", "GFLOP (executed)", "GFLOP/s (executed)", "of peak (quartiles)",
    "executed of peak (quartiles)", "bytes (XLA)", "memory (XLA)", "peak memory",
)  # fmt: skip
PEERS = ("config", "program", "peer", "jaxdiff", "peer's run", "jaxdiff / peer", "going first", "going second")
LOOP = ("config", "batch", "calls", "one call", "loop / bare calls - 1 (quartiles)", "rounds")
SCALING = ("config", "program", "batch", "devices", "images/s", "against the first")
LOADER = ("config", "batch", "pictures", "images/s from disk", "images/s again (quartiles)")
CHECKPOINT = ("config", "size", "training waits", "save", "restore")


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = (header, ["-" * width for width in widths], *rows)
    lined = ("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)
    return "\n".join([f"## {title}\n", *lined])


def _program(r: Record) -> list[str]:
    return [
        r["config"],
        r["name"],
        str(r["batch"]),
        str(r["devices"]),
        r["dtype"],
        f"{r['trace_s'] + r['lower_s']:.1f} + {r['compile_s']:.1f} s",
        _spread(r["run"], _seconds),
        _rate(r["images_per_s_per_device"]),
        str(r["recompiled"]),
    ]


def _work(r: Record) -> list[str]:
    xla, percent = r["xla"], lambda x: f"{100 * x:.0f}%"
    return [
        r["config"],
        r["name"],
        str(r["batch"]),
        str(r["devices"]),
        f"{r['flops'] / 1e9:.4g} ({r['executed'] / 1e9:.4g})",
        f"{r['flops_per_s'] / 1e9:.4g} ({r['executed_per_s'] / 1e9:.4g})",
        _spread(r["of_peak"], percent),
        _spread(r["executed_of_peak"], percent),
        _bytes(xla["bytes"]),
        _bytes(xla["memory"]),
        f"{_bytes(r['memory']['bytes'])} ({r['memory']['of']})" if r["memory"] else "-",
    ]


def _peers(r: Record) -> list[list[str]]:
    def ratio(peer: Record, turn: str) -> str:
        return _spread(peer["ratio"][turn], lambda x: f"{x:.3f}") if turn in peer["ratio"] else "-"

    return [
        [
            r["config"],
            r["name"],
            name,
            _seconds(r["run"]["median"]),
            _seconds(peer["run"]["median"]),
            *(ratio(peer, turn) for turn in ("all", "first", "second")),
        ]
        for name, peer in r["against"].items()
    ]


def _loop(r: Record) -> list[str]:
    overhead = _spread(r["overhead"], lambda x: f"{100 * x:+.2f}%")
    one = _seconds(r["bare"]["median"] / r["calls"])
    return [r["config"], str(r["batch"]), str(r["calls"]), one, overhead, str(r["run"]["count"])]


def _scaling(programs: Sequence[Record]) -> list[list[str]]:
    """Picks the records that follow one of a single device, of the same program: they were measured together."""
    rows, groups = [], list[list[Record]]()
    for r in programs:
        if groups and r["devices"] > 1 and (r["config"], r["name"]) == (groups[-1][0]["config"], groups[-1][0]["name"]):
            groups[-1].append(r)
        else:
            groups.append([r])
    for one, *more in groups:
        for r in [one, *more] if more else []:
            rate = r["batch"] / r["run"]["median"]
            against = f"x {one['run']['median'] / r['run']['median']:.2f}"
            rows.append([r["config"], r["name"], str(r["batch"]), str(r["devices"]), _rate(rate), against])
    return rows


def _loader(r: Record) -> list[str]:
    rate = _spread(r["images_per_s"], lambda x: f"{x:.0f}")
    return [r["config"], str(r["batch"]), str(r["pictures"]), f"{r['first_images_per_s']:.0f}", rate]


def _checkpoint(r: Record) -> list[str]:
    return [r["config"], _bytes(r["bytes"]), *(_spread(r[name], _seconds) for name in ("blocked", "save", "restore"))]


def _spread(record: Record, show: Any) -> str:
    return f"{show(record['median'])} ({show(record['lower'])} to {show(record['upper'])})"


def _seconds(x: float) -> str:
    return f"{x:.3g} s" if x >= 1 else f"{1000 * x:.3g} ms"


def _rate(x: float) -> str:
    return f"{x:.0f}" if x >= 1000 else f"{x:.3g}"


def _bytes(x: float | int | None) -> str:
    return "-" if x is None else f"{x / 1e9:.3g} GB" if x >= 1e9 else f"{x / 1e6:.3g} MB"
