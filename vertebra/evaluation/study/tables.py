"""The paper's tables with our figures beside its own. One column has one protocol: data, view and schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

from vertebra.evaluation.report import formats
from vertebra.evaluation.study import published
from vertebra.evaluation.study.averages import mean_and_spread
from vertebra.evaluation.study.published import Key, Published
from vertebra.evaluation.study.runs import Group, Net, Protocol, StudyRun

VIEWS = {
    "1crop": "1 centre crop",
    "10crop": "10 crops",
    "dense": "fully convolutional",
    "multiscale": "fully convolutional at several scales",
}
WHOLE_SCHEDULE = 0.99  # of the paper's images: from here on a training is not called shortened


@dataclass(frozen=True)
class Column:
    """`name`, and the `notes` above it: whose, on which data, by which view, after which training. Neighbours with
    equal notes share them on the page."""

    name: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Cells are text, a second line in them small print; rows begin with their net's name."""

    title: str
    columns: list[Column]
    rows: list[tuple[str, list[str]]]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        heads = [
            {"notes": list(notes), "span": len(list(same))} for notes, same in groupby(c.notes for c in self.columns)
        ]
        return {**asdict(self), "heads": heads}


def paper_tables(protocols: Sequence[Protocol]) -> list[Table]:
    """Those of the paper's tables 2, 3, 4 and 6 for whose nets there are runs."""
    made = (_table_2(protocols), _table_3(protocols), _table_4(protocols), _table_6(protocols))
    return [table for table in made if table is not None]


def cell(values: Sequence[float]) -> str:
    """'8.75', '6.61 ± 0.16', or a dash."""
    if not values:
        return formats.NONE
    mean, deviation = mean_and_spread(values)
    return formats.points(mean) if deviation is None else f"{formats.points(mean)} ± {formats.points(deviation)}"


def schedule(run: StudyRun, paper: Published | None) -> str:
    """'1,600 steps of 128: shortened, 1/40 of the paper's images'."""
    batch = run.provenance.get("protocol", {}).get("solver.batch_size")
    told = f"{run.iterations:,} steps" + (f" of {batch}" if batch else "")
    if paper is None or paper.images_seen is None or not batch:
        return told
    share = run.iterations * batch / paper.images_seen
    if share >= WHOLE_SCHEDULE:
        return told
    part = f"1/{1 / share:,.0f}" if share < 0.4 else f"{100 * share:.0f} %"
    return f"{told}: shortened, {part} of the paper{formats.APOSTROPHE}s images"


def data_of(run: StudyRun) -> str:
    """'cifar, 50,000 images of 10 classes'."""
    data = run.provenance.get("training_data") or {}
    classes = len(run.provenance.get("class_names") or ())
    return f"{data.get('name', 'unknown data')}, {data.get('images', 0):,} training images of {classes} classes"


def _ours(protocol: Protocol, main: Protocol, view: str, paper: Published | None) -> tuple[str, ...]:
    run = protocol.first
    data = str((run.provenance.get("training_data") or {}).get("name", "unknown data"))
    notes = ["Ours", data, "the single view" if run.net.cifar else VIEWS.get(view, view), schedule(run, paper)]
    if protocol is not main:
        notes.append(departures(protocol, main))
    return tuple(notes)


def departures(protocol: Protocol, main: Protocol) -> str:
    """In which fields another protocol departs from the main one: 'solver.lr 0.01'."""
    names = sorted(
        name
        for name in protocol.fields.keys() | main.fields.keys()
        if protocol.fields.get(name) != main.fields.get(name) and not name.endswith("fingerprint")
    )
    told = [f"{name} {formats.plain(protocol.fields.get(name))}" for name in names[:4]]
    return ", ".join(told) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _theirs(paper: Published) -> tuple[str, ...]:
    return "The paper", paper.data, paper.view, paper.schedule


def _nets(protocols: Sequence[Protocol], wanted: Callable[[Net], bool]) -> dict[Net, dict[int, Group]]:
    """Every such net, with its runs by the place of their protocol."""
    found: dict[Net, dict[int, Group]] = {}
    for place, protocol in enumerate(protocols):
        for group in protocol.groups:
            if wanted(group.net):
                found.setdefault(group.net, {})[place] = group
    return found


def _error_columns(
    protocols: Sequence[Protocol],
    nets: Mapping[Net, Mapping[int, Group]],
    views: Sequence[str],
    papers: Mapping[str, Published],
    shown: Sequence[int],
) -> tuple[list[Column], dict[Net, list[str]]]:
    """Our errors by protocol and view, where any net has them; `shown`: of top-1 and top-5."""
    columns: list[Column] = []
    cells: dict[Net, list[str]] = {net: [] for net in nets}
    for place, protocol in enumerate(protocols):
        for view in views:
            for k in shown:
                values = {
                    net: groups[place].test_errors(view, k) if place in groups else [] for net, groups in nets.items()
                }
                if any(values.values()):
                    notes = _ours(protocol, protocols[0], view, papers.get(view))
                    columns.append(Column(f"Top-{k} error" if len(shown) > 1 else "Test error", notes))
                    for net in nets:
                        cells[net].append(cell(values[net]))
    return columns, cells


def _add_paper(columns: list[Column], cells: Mapping[Net, list[str]], paper: Published, shown: Sequence[int]) -> None:
    for k in shown:
        columns.append(Column(f"Top-{k} error" if len(shown) > 1 else "Test error", _theirs(paper)))
        figures: dict[Key, float] = paper.top1 if k == 1 else paper.top5
        for net, row in cells.items():
            row.append(formats.points(figures.get(net.key) if net.as_published else None))


def _runs_note(nets: Mapping[Net, Mapping[int, Group]]) -> list[str]:
    counts = {len(group.runs) for groups in nets.values() for group in groups.values()}
    if counts == {1}:
        return ["One run of each net: nothing is known of the spread."]
    told = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    return [f"Mean ± standard deviation over seeds; {told} runs of each net."]


def _table_6(protocols: Sequence[Protocol]) -> Table | None:
    nets = _nets(protocols, lambda net: net.cifar)
    if not nets:
        return None
    columns, cells = _error_columns(protocols, nets, ["1crop"], {"1crop": published.CIFAR10}, [1])
    training_columns, training = _training_columns(protocols, nets)
    _add_paper(columns, cells, published.CIFAR10, [1])
    rows = []
    for net, groups in nets.items():
        parameters = [run.parameters for group in groups.values() for run in group.runs if run.parameters]
        rows.append((net.label, [formats.count(max(parameters, default=None)), *training[net], *cells[net]]))
    notes = _runs_note(nets)
    if any(net.key == ("residual", 110, "A") for net in nets):
        notes.append("The paper\u2019s 6.43 with 110 layers is the best of five runs, whose mean is 6.61 ± 0.16.")
    return Table(
        "Table 6: nets for 32x32 images by depth", [Column("Parameters"), *training_columns, *columns], rows, notes
    )


def _training_columns(
    protocols: Sequence[Protocol], nets: Mapping[Net, Mapping[int, Group]]
) -> tuple[list[Column], dict[Net, list[str]]]:
    columns: list[Column] = []
    cells: dict[Net, list[str]] = {net: [] for net in nets}
    for place, protocol in enumerate(protocols):
        values = {net: groups[place].train_errors if place in groups else [] for net, groups in nets.items()}
        if any(values.values()):
            note = "" if len(protocols) == 1 or place == 0 else departures(protocol, protocols[0])
            columns.append(Column("Training error", ("Ours", "last tenth of the training", *([note] if note else []))))
            for net in nets:
                cells[net].append(cell(values[net]))
    return columns, cells


def _table_2(protocols: Sequence[Protocol]) -> Table | None:
    """Rows are depths, columns plain and residual: of our residual nets, one shortcut in all rows."""
    nets = _nets(protocols, lambda net: not net.cifar and net.as_published and net.depth in (18, 34))
    if not {net.family for net in nets} >= {"plain", "residual"}:
        return None
    residual = [net for net in nets if net.family == "residual"]
    shortcut = max("ABC", key=lambda kind: sum(net.shortcut == kind for net in residual))  # the first of the most
    columns: list[Column] = []
    rows: dict[int, list[str]] = {depth: [] for depth in sorted({net.depth for net in nets})}
    for place, protocol in enumerate(protocols):
        for view in ("1crop", "10crop"):
            for family, name, kind in (("plain", "plain", None), ("residual", f"ResNet {shortcut}", shortcut)):
                values = {}
                for depth in rows:
                    found = [n for n in nets if (n.family, n.depth) == (family, depth) and kind in (None, n.shortcut)]
                    group = nets[found[0]].get(place) if found else None
                    values[depth] = group.test_errors(view) if group else []
                if any(values.values()):
                    columns.append(Column(name, _ours(protocol, protocols[0], view, published.TEN_CROP)))
                    for depth in rows:
                        rows[depth].append(cell(values[depth]))
    for family, name, kind in (("plain", "plain", None), ("residual", "ResNet A", "A")):
        columns.append(Column(name, _theirs(published.TEN_CROP)))
        for depth in rows:
            rows[depth].append(formats.points(published.TEN_CROP.top1.get((family, depth, kind))))
    told = [(f"{depth} layers", cells) for depth, cells in rows.items()]
    return Table("Table 2: top-1 error of plain and of residual nets", columns, told, _runs_note(nets))


def _table_3(protocols: Sequence[Protocol]) -> Table | None:
    nets = _nets(protocols, lambda net: not net.cifar)
    if not nets:
        return None
    columns, cells = _error_columns(
        protocols, nets, ["1crop", "10crop"], dict.fromkeys(VIEWS, published.TEN_CROP), [1, 5]
    )
    _add_paper(columns, cells, published.TEN_CROP, [1, 5])
    title = "Table 3: error on the validation images"
    return Table(title, columns, [(net.label, cells[net]) for net in nets], _runs_note(nets))


def _table_4(protocols: Sequence[Protocol]) -> Table | None:
    nets = _nets(protocols, lambda net: not net.cifar)
    papers = dict.fromkeys(VIEWS, published.MULTISCALE)
    columns, cells = _error_columns(protocols, nets, ["dense", "multiscale"], papers, [1, 5])
    if not columns:
        return None
    _add_paper(columns, cells, published.MULTISCALE, [1, 5])
    title = "Table 4: single models, fully convolutional"
    return Table(title, columns, [(net.label, cells[net]) for net in nets], _runs_note(nets))
