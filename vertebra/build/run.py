"""A training from its data to its figures, whatever it trains: `train(job)`, and what a job is."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from torch import nn

from vertebra.build.training import (
    Recipe,
    build_optimizer,
    build_schedule,
    check_classes,
    describe_rate,
    iterations_of,
    parts_of_batch,
    pipeline_of,
)
from vertebra.data.loading.loaders import Loader
from vertebra.engine import loop, precision, provenance, rng
from vertebra.engine.average import WeightAverage
from vertebra.engine.device import loader_workers, memory_in_words
from vertebra.engine.distributed import World, may_restart
from vertebra.engine.logs import setup_logging
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.session import Record
from vertebra.engine.trackers import Subject, begin_tracking
from vertebra.ground.errors import UserError
from vertebra.recipes.schema import ADDED, BackboneRecipe, RunRecipe, flatten, may_differ, path_part
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_localisation import LocalisationRecipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe

logger = logging.getLogger(__name__)


class Images(Protocol):
    """The part that all kinds of data sets have in common."""

    @property
    def source(self) -> str: ...
    @property
    def class_names(self) -> Sequence[str]: ...
    @property
    def notes(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def fingerprint(self) -> str: ...


AnyRecipe = TypeVar("AnyRecipe", BackboneRecipe, DetectionRecipe, LocalisationRecipe, SegmentationRecipe)
AnySet = TypeVar("AnySet", bound=Images)


class TrainingJob(ABC, Generic[AnyRecipe, AnySet]):
    """One kind of training. `train` calls its methods in the order in which they stand here.

    kind: run directories are named KIND_BACKBONE_DATA_SEED. figure: of the evaluations, for a plateau schedule.
    best: the figure that chooses the best checkpoint, None: it is not kept. average: of the weights, evaluated beside
    them. evaluates: in training, not only after it.
    """

    kind: ClassVar[str]
    figure: ClassVar[str]
    best: str | None = None
    average: WeightAverage | None = None
    evaluates: bool = True

    def __init__(self, recipe: AnyRecipe, world: World) -> None:
        self.recipe: AnyRecipe = recipe
        self.best = self.figure if recipe.keep_best and recipe.eval_period is not None else None
        self.world = world
        self.train_set, self.test_set = self.open_data()

    @abstractmethod
    def open_data(self) -> tuple[AnySet, AnySet]:
        """Return the training set and the test set."""

    def data_name(self) -> str:
        """Return the word for the data in the name of the run directory."""
        return self.recipe.data_directory().resolve().name

    def check_files(self) -> None:
        """Raise UserError where the evaluation would, after the training, for a picture that is not there."""

    def prepare(self) -> None:
        """Read what else is needed before random numbers are seeded."""

    @abstractmethod
    def make_model(self) -> nn.Module:
        """Return the model with the weights that it starts from, on the world's device."""

    @abstractmethod
    def title(self) -> str:
        """Return a few words on what is trained, for the log."""

    @abstractmethod
    def facts(self, iterations: int) -> dict[str, Any]:
        """Return what provenance.json tells of this kind of training, from before it begins."""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Return all that must be equal in two runs for their figures to be compared."""

    def begin(self, run: RunDirectory) -> None:
        """Write what there is to write before the first step."""

    @abstractmethod
    def train_loader(self, *, start: int, iterations: int) -> Any:
        """Return the batches of the steps from `start` on."""

    @abstractmethod
    def test_loader(self) -> Any:
        """Return the batches of an evaluation."""

    @abstractmethod
    def evaluate(self, run: RunDirectory) -> dict[str, float]:
        """Return the model's figures on the test set; called by all processes, rank 0's figures count."""

    @abstractmethod
    def finish(self, run: RunDirectory, record: Record, facts: dict[str, Any]) -> None:
        """Write figures and weights, with `facts`, and finish the run."""


def train(job: TrainingJob[Any, Any]) -> int:
    """Train, evaluate and write a job's run; return the command's exit status."""
    with memory_in_words(job.world.device, memory_savers(job.recipe)):
        return _train(job)


def memory_savers(recipe: Recipe) -> str:
    """Return the flags with which a training needs less memory."""
    tested = recipe.test.batch_size if not isinstance(recipe, BackboneRecipe) else 1
    flags = {
        f"--solver.accumulate {2 * recipe.solver.accumulate} (the same steps, in smaller parts)": True,
        f"--test.batch-size {tested // 2} (where an evaluation fails)": tested > 1,
        "--checkpoint-activations": isinstance(recipe, BackboneRecipe) and not recipe.checkpoint_activations,
    }
    return ", ".join(flag for flag, helps in flags.items() if helps)


def _train(job: TrainingJob[Any, Any]) -> int:
    """Whatever can be wrong with the command is found before a directory is made, in the way of the next try."""
    world, train_set, test_set = job.world, job.train_set, job.test_set
    check_classes(train_set.class_names, train_set.source, test_set.class_names, test_set.source)
    iterations = iterations_of(job.recipe, len(train_set))
    job.recipe = recipe = completed(job.recipe, world, kind=job.kind, data=job.data_name())
    schedule = build_schedule(recipe.solver, iterations, figure=job.figure, images=len(train_set))
    begun = world.decide(lambda: RunDirectory(recipe.output or Path()).read_data().get("processes", world.size))
    parts = parts_of_batch(recipe.solver, world.size, begun)
    if is_finished(recipe, world, train_set):
        return 0
    job.check_files()
    pipeline_of(recipe)  # made to see that it can be
    job.prepare()
    rng.seed_all(recipe.seed)
    model = job.make_model()
    run = open_run(recipe, world, train_set, (*train_set.notes, *test_set.notes))
    if run is None:
        return 0
    logger.info(
        "%s, %d classes, %d training images (%s), %d test images (%s), %d iterations of %d images, %s on %s -> %s",
        job.title(), len(train_set.class_names), len(train_set), train_set.source, len(test_set), test_set.source,
        iterations, recipe.solver.batch_size, recipe.precision, world.device, run.path,
    )  # fmt: skip
    if sentence := describe_rate(recipe.solver):
        logger.info(sentence)
    protocol = {**job.protocol(), "train_fingerprint": train_set.fingerprint()}
    facts = {
        "class_names": list(train_set.class_names),
        "seed": recipe.seed,
        **job.facts(iterations),
        "protocol": protocol,
        "protocol_hash": provenance.protocol_hash(protocol),
        **provenance.describe(),  # now: the code and the machine that the run starts with
    }
    job.begin(run)
    world.decide(lambda: run.metrics.trackers.extend(begin_tracking(recipe.track, subject(job, run, facts))))
    state = run.latest_state()
    if world.size != begun:
        logger.info(
            "%d processes instead of the %d that began: a step still takes %d images at the same rate, in %d part(s) of"
            " %d images a process", world.size, begun, recipe.solver.batch_size, parts,
            recipe.solver.batch_size // (parts * world.size),
        )  # fmt: skip
    solver = recipe.solver.model_copy(update={"accumulate": parts})
    job.recipe = recipe = recipe.model_copy(update={"solver": solver})
    rng.seed_all(recipe.seed, rank=world.rank)  # draws that no image decides (dropout) differ between processes
    loader = job.train_loader(start=int(state["iteration"]) if state else 0, iterations=iterations)
    if job.evaluates and isinstance(loader, Loader):
        loader.require_room(job.test_loader())
    record = loop.train(
        model=model,
        optimizer=build_optimizer(recipe.solver, model),
        schedule=schedule,
        loader=loader,
        run=run,
        iterations=iterations,
        world=world,
        precision=recipe.precision,
        accumulate=recipe.solver.accumulate,
        grad_clip=recipe.solver.grad_clip,
        evaluate=(lambda _: job.evaluate(run)) if job.evaluates else None,
        eval_period=recipe.eval_period,
        checkpoint_period=recipe.checkpoint_period,
        log_period=recipe.log_period,
        best=job.best,
        average=job.average,
        state=state,
        compile=getattr(recipe, "compile", False),
    )
    job.finish(run, record, {**facts, "training_s": round(record.seconds, 1)})
    return 0


def subject(job: TrainingJob[Any, Any], run: RunDirectory, facts: dict[str, Any]) -> Subject:
    """Return what trackers are told of a run."""
    origin = {name: facts[name] for name in ("protocol_hash", "commit", "command")}
    tags = {"job": job.kind, "backbone": job.recipe.backbone, "data": job.data_name()}
    return Subject(run.path, {**flatten(job.recipe), **origin}, tags)


def completed(recipe: AnyRecipe, world: World, *, kind: str, data: str) -> AnyRecipe:
    """Return the recipe with its precision, workers and run directory, which it may leave open.

    From here on log lines show.
    """
    setup_logging(is_main=world.is_main)
    precise = precision.resolve(recipe.precision, world.device)
    if world.device.type == "cuda" and precise != "bf16":
        what = precision.float32_on(world.device) if precise == "fp32" else "with a loss scale"
        logger.info("precision %s: %s", precise, what)
    default = Path("runs") / f"{kind}_{path_part(recipe.backbone)}_{data}_{recipe.seed}"
    workers = loader_workers(recipe.workers)
    return recipe.model_copy(update={"precision": precise, "workers": workers, "output": recipe.output or default})


def is_finished(recipe: RunRecipe, world: World, train_set: Images) -> bool:
    """Tell whether the run has been finished before, and print so. Asked before weights and networks are made.

    Raises UserError where the directory holds a finished run of another recipe, or `resume` was not asked for.
    """
    run = RunDirectory(recipe.output or Path())
    finished = world.decide(lambda: run.finished)  # a node may see another disk than rank 0's
    return finished and open_run(recipe, world, train_set) is None


def open_run(recipe: RunRecipe, world: World, train_set: Images, notes: Iterable[str] = ()) -> RunDirectory | None:
    """Return the run's directory and write its log from here on; None where the run is finished, which is printed.

    notes: on the data, logged as warnings. A run that goes on with other images (one may have been bad, and is gone)
    logs a warning. Raises UserError where the directory holds something else or a run on other classes, or where
    `resume` was not asked for.
    """
    assert recipe.output is not None
    fields = recipe.model_dump(mode="json")
    resume = recipe.resume or may_restart()  # torchrun's restarts go on by themselves
    run = RunDirectory.open(
        recipe.output, fields, resume=resume, may_differ=may_differ(recipe), added=ADDED, world=world
    )
    run.checkpoints.keep = recipe.keep_checkpoints
    images = {"classes": list(train_set.class_names), "fingerprint": train_set.fingerprint()}
    changed = set(run.record_data({**images, "processes": world.size})) & images.keys()
    if "classes" in changed:
        raise UserError(f"{run.path} holds a run on other classes than those of --data; choose another --output.")
    if world.decide(lambda: run.finished):
        if world.is_main:
            of = " (of a training on other images than those of --data)" if changed else ""
            print(f"{run.path} is finished: its weights are {run.weights}{of}, its figures {run.evaluation}")
        return None
    setup_logging(run.log, is_main=world.is_main)
    if changed:
        logger.warning("the training images are not those that this run began with: it goes on with those of --data")
    for note in notes:
        logger.warning(note)
    return run
