"""The paper's tables with our figures beside its own. One column has one protocol: data, view and schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vertebra.evaluation.statistics.comparison import mean_and_spread
from vertebra.evaluation.study import published
from vertebra.evaluation.study.averages import Responses
from vertebra.evaluation.study.findings import Finding
from vertebra.evaluation.study.nets import Net
from vertebra.evaluation.study.protocols import Group, Protocol
from vertebra.evaluation.study.published import Key, Published
from vertebra.evaluation.study.runs import StudyRun
from vertebra.ground import formats
from vertebra.ground.table import Cell, Row, Table

VIEWS = {
    "1crop": "1 centre crop",
    "10crop": "10 crops",
    "dense": "fully convolutional",
    "multiscale": "fully convolutional at several scales",
}
WHOLE_SCHEDULE = 0.99  # of the paper's images: from here on a training is not called shortened
VERDICTS = {"shown": "shown", "not shown": "not shown", "single": "no statement"}
Nets = Sequence[Net | None]  # a table's rows, None where there is no such net


@dataclass(frozen=True)
class Column:
    """A heading, the lines above it (whose, which data, which view, which training), and a cell for each row."""

    name: str
    head: Sequence[str]
    cells: Sequence[str]


def paper_tables(protocols: Sequence[Protocol]) -> list[Table]:
    """Return those of the paper's tables 2, 3, 4 and 6 for whose nets there are runs."""
    nets = list(dict.fromkeys(group.net for protocol in protocols for group in protocol.groups))
    large, small = [net for net in nets if not net.cifar], [net for net in nets if net.cifar]
    tables = [_table_2(protocols, large)]
    if large:
        views = ("1crop", "10crop")
        tables.append(_by_view("Table 3: error on the validation images", protocols, large, views, published.TEN_CROP))
        title, views = "Table 4: single models, fully convolutional", ("dense", "multiscale")
        tables.append(_by_view(title, protocols, large, views, published.MULTISCALE))
    if small:
        tables.append(_table_6(protocols, small))
    return [table for table in tables if table is not None]


def findings_table(found: Sequence[Finding]) -> Table:
    """Return the differences of deep and shallow nets, a row for each measure."""
    labels = [group.net.label for group in found[0].corners]
    columns = [f"{labels[1]} less {labels[0]}", f"{labels[3]} less {labels[2]}", "the first less the second"]
    heads = [("Plain nets",), ("Residual nets",), ("What depth costs without shortcuts",), ()]
    rows = []
    for finding in found:
        cells: list[Cell | str] = []
        for one in (finding.plain, finding.residual, finding.contrast):
            interval = f"{one.interval}; SE {formats.points(one.se)}" if one.interval else ""
            cells.append(Cell(formats.signed_points(one.value), interval))
        rows.append(Row(finding.measure.capitalize(), [*cells, VERDICTS[finding.verdict]]))
    note = "With 95 % interval and standard error (SE) over seeds." if found[0].contrast.se is not None else ""
    return Table("Deep less shallow, points of error", [*columns, "Degradation"], rows, "Measure", note, heads=heads)


def mean_cell(values: Sequence[float]) -> str:
    """'8.75', '6.61 ± 0.16', or a dash."""
    if not values:
        return formats.NONE
    mean, deviation = mean_and_spread(values)
    return formats.points(mean) if deviation is None else f"{formats.points(mean)} ± {formats.points(deviation)}"


def schedule(run: StudyRun, paper: Published | None) -> str:
    """'1,600 steps of 128: shortened, 1/40 of the paper's images'."""
    batch = run.provenance.get("protocol", {}).get("solver.batch_size")
    steps = f"{run.iterations:,} steps" + (f" of {batch}" if batch else "")
    share = run.iterations * batch / paper.images_seen if paper and batch else 1.0
    if share >= WHOLE_SCHEDULE:
        return steps
    part = f"1/{1 / share:,.0f}" if share < 0.4 else f"{100 * share:.0f} %"
    return f"{steps}: shortened, {part} of the paper{formats.APOSTROPHE}s images"


def net_table(groups: Sequence[Group]) -> Table:
    """Return the mean errors of the nets."""
    rows = []
    for group in groups:
        errors = map(mean_cell, (group.train_errors, group.test_errors()))
        rows.append(Row(group.net.label, [str(len(group.runs)), formats.count(group.runs[0].parameters), *errors]))
    return Table("Nets", ["Runs", "Parameters", "Training error", "Test error"], rows, "Net")


def response_table(responses: Sequence[Responses]) -> Table:
    """Return mean, least and greatest deviation of the nets' layers (figure 7)."""
    rows = []
    for one in responses:
        figures = (one.mean, min(one.deviations), max(one.deviations))
        rows.append(Row(one.label, [str(len(one.deviations)), *(f"{value:.3f}" for value in figures)]))
    note = (
        "Standard deviation of what each 3x3 layer gives, after its norm and before the ReLU or the addition, over "
        f"{responses[0].images if responses else 0} test images (figure 7)."
    )
    return Table("Layer responses", ["Layers", "Mean", "Least", "Greatest"], rows, "Net", note)


def run_table(runs: Sequence[StudyRun]) -> Table:
    """Return every run once."""
    rows = [
        Row(
            run.net.label,
            [
                formats.plain(run.seed),
                formats.points(run.train_error),
                formats.points(run.errors["1crop"]["error1"]),
                f"{run.iterations:,}",
                formats.duration(run.provenance.get("training_s")),
                formats.plain(run.provenance.get("commit"))[:10],
                str(run.directory),
            ],
        )
        for run in runs
    ]
    columns = ["Seed", "Training error", "Test error", "Steps", "Time", "Commit", "Directory"]
    return Table("Runs", columns, rows, "Net", left=frozenset({"Commit", "Directory"}))


def _measured(
    name: str, head: Sequence[str], nets: Nets, protocol: Protocol, errors: Callable[[Group], list[float]]
) -> Iterable[Column]:
    """A column of our errors, if any net has them under the protocol."""
    of_net = {group.net: errors(group) for group in protocol.groups}
    values = [of_net.get(net, []) if net else [] for net in nets]
    if any(values):
        yield Column(name, head, [mean_cell(one) for one in values])


def _test_columns(
    name: str, protocol: Protocol, nets: Nets, view: str, paper: Published, k: int = 1
) -> Iterable[Column]:
    run = protocol.first
    head = ["Ours", run.data_name, "the single view" if run.net.cifar else VIEWS[view], schedule(run, paper)]
    head += filter(None, [protocol.difference])
    return _measured(name, head, nets, protocol, lambda group: group.test_errors(view, k))


def _of_paper(name: str, paper: Published, keys: Sequence[Key | None], k: int = 1) -> Column:
    cells = [formats.points(paper.error(key, k) if key else None) for key in keys]
    return Column(name, ("The paper", paper.data, paper.view, paper.schedule), cells)


def _table(title: str, corner: str, names: Sequence[str], columns: Sequence[Column], notes: Sequence[str]) -> Table:
    rows = [Row(name, [column.cells[place] for column in columns]) for place, name in enumerate(names)]
    heads = [column.head for column in columns]
    return Table(title, [column.name for column in columns], rows, corner, " ".join(notes), heads=heads)


def _groups(protocols: Sequence[Protocol], nets: Nets) -> list[Group]:
    return [group for protocol in protocols for group in protocol.groups if group.net in nets]


def _note_on_runs(protocols: Sequence[Protocol], nets: Nets) -> str:
    counts = {len(group.runs) for group in _groups(protocols, nets)}
    if counts == {1}:
        return "One run of each net: nothing is known of the spread."
    number = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    return f"Mean ± standard deviation over seeds; {number} runs of each net."


def _table_2(protocols: Sequence[Protocol], nets: Sequence[Net]) -> Table | None:
    """Rows are depths, columns plain and residual: of our residual nets, one shortcut in all rows."""
    nets = [net for net in nets if net.as_published and net.depth in (18, 34)]
    if not {net.family for net in nets} >= {"plain", "residual"}:
        return None
    shortcuts = [net.shortcut for net in nets if net.family == "residual"]
    shortcut = max("ABC", key=shortcuts.count)  # the first of the most
    depths = sorted({net.depth for net in nets})
    by_key = {net.key: net for net in nets}
    kinds = {"plain": ("plain", None), f"ResNet {shortcut}": ("residual", shortcut)}
    columns: list[Column] = []
    for protocol in protocols:
        for view in ("1crop", "10crop"):
            for name, (family, kind) in kinds.items():
                rows = [by_key.get((family, depth, kind)) for depth in depths]
                columns += _test_columns(name, protocol, rows, view, published.TEN_CROP)
    for name, family, kind in (("plain", "plain", None), ("ResNet A", "residual", "A")):
        columns.append(_of_paper(name, published.TEN_CROP, [(family, depth, kind) for depth in depths]))
    title, names = "Table 2: top-1 error of plain and of residual nets", [f"{depth} layers" for depth in depths]
    return _table(title, "Depth", names, columns, [_note_on_runs(protocols, nets)])


def _by_view(
    title: str, protocols: Sequence[Protocol], nets: Sequence[Net], views: Sequence[str], paper: Published
) -> Table | None:
    """Top-1 and top-5 error by view; None where no run has one of these views."""
    columns: list[Column] = []
    for protocol in protocols:
        for view in views:
            for k in (1, 5):
                columns += _test_columns(f"Top-{k} error", protocol, nets, view, paper, k)
    if not columns:
        return None
    columns += [_of_paper(f"Top-{k} error", paper, _published_keys(nets), k) for k in (1, 5)]
    return _table(title, "Net", [net.label for net in nets], columns, [_note_on_runs(protocols, nets)])


def _table_6(protocols: Sequence[Protocol], nets: Sequence[Net]) -> Table:
    paper = published.CIFAR10
    sizes = [
        [run.parameters for group in _groups(protocols, [net]) for run in group.runs if run.parameters] for net in nets
    ]
    columns = [Column("Parameters", (), [formats.count(max(known, default=None)) for known in sizes])]
    for protocol in protocols:
        head = ["Ours", "last tenth of the training", *filter(None, [protocol.difference])]
        columns += _measured("Training error", head, nets, protocol, lambda group: group.train_errors)
    for protocol in protocols:
        columns += _test_columns("Test error", protocol, nets, "1crop", paper)
    columns.append(_of_paper("Test error", paper, _published_keys(nets)))
    notes = [_note_on_runs(protocols, nets)]
    if any(net.key == ("residual", 110, "A") for net in nets):
        notes.append(
            f"The paper{formats.APOSTROPHE}s 6.43 with 110 layers is the best of five runs, whose mean is 6.61 ± 0.16."
        )
    return _table("Table 6: nets for 32x32 images by depth", "Net", [net.label for net in nets], columns, notes)


def _published_keys(nets: Sequence[Net]) -> list[Key | None]:
    return [net.key if net.as_published else None for net in nets]
