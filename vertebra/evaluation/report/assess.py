"""From runs to what the report states: figures, differences, rankings, curves and reasons, as `Content`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vertebra.evaluation.metrics.summary import ignored
from vertebra.evaluation.report import origins, sentences
from vertebra.evaluation.report.box_scores import ERROR_RESAMPLES, BoxScores, per_size, precision_recall
from vertebra.evaluation.report.comparable import HeadRuns
from vertebra.evaluation.report.content import ClassRow, Comparison, Content, Protocol, RunFacts, SideFacts
from vertebra.evaluation.report.costs import fronts, ratios, side_cost
from vertebra.evaluation.report.curves import side_curves
from vertebra.evaluation.report.reasons import Reasons, mean_of
from vertebra.evaluation.report.runs import Run
from vertebra.evaluation.report.scores import RESAMPLES, PixelScores, Scores
from vertebra.evaluation.report.sides import Side, group_runs
from vertebra.evaluation.report.task import DETECTION, Task
from vertebra.evaluation.statistics.comparison import corrected
from vertebra.ground.formats import known


def assess(compared: HeadRuns, failed: Sequence[str]) -> Content:
    """Return the report on one head, without its images and expectations."""
    runs, task = compared.runs, compared.task
    sides = group_runs(runs)
    scores = BoxScores(runs, sides) if task is DETECTION else PixelScores(runs, sides)
    described = [describe(side, scores) for side in sides]
    order = ranking(task, described)
    to_baseline = [(0, place) for place in range(1, len(sides))]
    every_pair = [(worse, better) for rank, better in enumerate(order) for worse in order[rank + 1 :]]
    comparisons = compare_all(scores, described, to_baseline)
    # Of all pairs, as the same data chose the best.
    against_best = compare_all(scores, described, every_pair[: len(sides) - 1], among=every_pair)
    lead = against_best[0] if against_best else None
    shown = [0, *[place for place in order if place != 0][:1]]  # the baseline, and the best of the others
    in_pair = next((one for one in comparisons if one.b == sides[shown[-1]].label), None)
    equal = protocol(runs)
    content = Content(
        task=task,
        title=_title(task, sides),
        head=compared.head,
        first=warnings(task, sides, failed),
        headline=sentences.headline(task, described, lead),
        caveat=sentences.caveat(task, described, lead),
        sentences=sentences.details(task, described, lead),
        notes=sentences.notes(
            task,
            described,
            images=scores.data.images,
            ignored=ignored(runs[0].truth) if task is DETECTION else "",
            sample_hash=equal.sample_hash,
            machines=[run.machine for run in runs if run.name is None],
        ),
        data=scores.data,
        figures=scores.names,
        sides=described,
        baseline=sides[0].label,
        best=sides[order[0]].label,
        pair=[sides[place].label for place in shown],
        lead=lead,
        differences_to_baseline=comparisons,
        best_against_others=against_best if len(sides) > 2 else [],
        pairs_of_sides=len(every_pair),
        fronts=fronts(task, described),
        per_class=per_class(scores, in_pair),
        training=[side_curves(task, side) for side in sides],
        runs=[run_facts(side, run, place, scores) for side in sides for run, place in zip(side.runs, side.places)],
        protocol=equal,
        resamples=RESAMPLES,
        failed=list(failed),
    )
    if not isinstance(scores, BoxScores):
        return content
    errors = {(sides[a].label, sides[b].label): scores.error_differences(sides[a], sides[b]) for a, b in to_baseline}
    return replace(
        content,
        per_size=per_size(runs[0].truth, described, in_pair),
        precision_recall=precision_recall(scores),
        reasons=Reasons([mean_of([scores.runs[place].explanation for place in side.places]) for side in sides], errors),
        error_resamples=ERROR_RESAMPLES,
    )


def _title(task: Task, sides: Sequence[Side]) -> str:
    if len(sides) < 4:
        return " against ".join(side.label for side in sides)
    return f"{len(sides)} {task.network}s, from {sides[0].label} to {sides[-1].label}"


def warnings(task: Task, sides: Sequence[Side], failed: Sequence[str]) -> list[str]:
    """Return what to know before the figures: unequal pre-training, unknown protocols, cells without a result."""
    labels = [side.label for side in sides]
    lines = [
        origins.pretraining_note([side.runs[0] for side in sides], labels),
        origins.unknown_protocol(task, [side.label for side in sides if side.is_file]) if len(sides) > 1 else None,
        *without_result(failed),
    ]
    return [line for line in lines if line]


def without_result(failed: Sequence[str]) -> list[str]:
    return [f"Without a result: {sentence.rstrip('.')}." for sentence in failed]


def describe(side: Side, scores: Scores) -> SideFacts:
    """Return one side's figures, cost and origin."""
    first = side.runs[0]
    return SideFacts(
        label=side.label,
        file=side.is_file,
        backbone=first.backbone,
        seeds=side.seeds,
        figures={name: scores.spread(side, name) for name in scores.names},
        cost=side_cost(side),
        weights=origins.weights_text(first),
        pretraining=replace(origins.pretraining(first), same_for_all_seeds=origins.is_one_pretraining(side.runs)),
    )


def compare_all(
    scores: Scores,
    described: Sequence[SideFacts],
    pairs: Sequence[tuple[int, int]],
    *,
    among: Sequence[tuple[int, int]] | None = None,
) -> list[Comparison]:
    """Compare side b with side a at each pair of places.

    among: the pairs that each figure's p-values are corrected over, which `pairs` were chosen from by the data (None:
    `pairs`).
    """
    if not pairs:
        return []
    sides = {pair: (scores.sides[pair[0]], scores.sides[pair[1]]) for pair in among or pairs}
    by_figure = {
        name: corrected({str(pair): scores.difference(a, b, name) for pair, (a, b) in sides.items()})
        for name in scores.names
    }
    return [
        Comparison(
            a=sides[pair][0].label,
            b=sides[pair][1].label,
            covers="seeds and images" if min(len(side.runs) for side in sides[pair]) > 1 else "images",
            differences={name: by_figure[name][str(pair)] for name in scores.names},
            per_class=scores.class_differences(*sides[pair]),
            ratios=ratios(described[pair[0]].cost, described[pair[1]].cost),
        )
        for pair in pairs
    ]


def ranking(task: Task, described: Sequence[SideFacts]) -> list[int]:
    """Return the places of the sides, the best first."""
    return sorted(range(len(described)), key=lambda place: -(described[place].figures[task.main].mean or 0.0))


def per_class(scores: Scores, pair: Comparison | None) -> list[ClassRow]:
    """Return the figures of each class and side, the number of objects or pixels, and the pair's difference."""
    figures = scores.task.of_class
    return [
        ClassRow(
            name,
            scores.truths[name],
            {figure: [scores.spread(side, whole, name) for side in scores.sides] for figure, whole in figures.items()},
            pair.per_class[name] if pair else None,
        )
        for name in scores.classes
    ]


def run_facts(side: Side, run: Run, place: int, scores: Scores) -> RunFacts:
    figures = scores.runs[place].figures
    return RunFacts(
        side=side.label,
        seed=run.seed,
        figures={name: known(float(figures[name].mean_S[0])) for name in scores.names},
        commit=run.provenance.get("commit"),
        machine=run.machine,
        command=run.provenance.get("command"),
        directory=str(run.path),
        training_s=known(run.provenance.get("training_s")),
    )


def protocol(runs: Sequence[Run]) -> Protocol:
    """Return what is equal between the runs, from the first that is not a file of predictions."""
    trained = [run for run in runs if run.name is None]
    if not trained:
        return Protocol()
    provenance = trained[0].provenance
    return Protocol(provenance.get("protocol_hash"), provenance.get("sample_hash"), trained[0].protocol)
