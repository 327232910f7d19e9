"""From files of weights to a test: the networks in them, the views they are tested by, what is read for those.

He et al. 2015, §3.4, tests with 10 crops in comparisons and with five sizes of the whole image for best results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backbones import Backbone, create_backbone
from backbones.dense import Dense, map_side
from vertebra.build.export_formats import format_of
from vertebra.build.results import named_backbone
from vertebra.build.training import autocast_of, check_classes
from vertebra.build.weights import adopt_identity, fitted, resolve_weights
from vertebra.data.loading.views import Crops, Whole
from vertebra.data.loading.views import View as Source
from vertebra.engine import precision as precisions
from vertebra.engine.weights import load_into
from vertebra.evaluation.predict.ensembles import Ensemble, NetworkView
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import validated
from vertebra.recipes.schema import ClassificationInput

PAPER_SIZE = 224
PAPER_SCALES = (224, 256, 384, 480, 640)  # He et al. 2015, §3.4
WHOLE_IMAGES = ("dense", "multiscale")


@dataclass(frozen=True)
class LoadedNet:
    """A network with its weights, ready to be tested.

    backbone: a Backbone, or an exported file in its place. size, resize: side of its crop and shorter side of the image
    that it is cut from, pixels. class_names: None where the file does not say.
    """

    path: Path
    backbone: Any
    size: int
    resize: int
    precision: str
    class_names: tuple[str, ...] | None


@dataclass(frozen=True)
class ViewPlan:
    """sources: the views that are read of each image. results: what is made of them, and `facts`, what each is."""

    sources: tuple[Source, ...]
    results: tuple[NetworkView | Ensemble, ...]
    facts: tuple[dict[str, Any], ...]

    @property
    def networks(self) -> list[nn.Module]:
        return [result.network for result in self.results if isinstance(result, NetworkView)]

    @property
    def reads_whole_images(self) -> bool:
        return any(isinstance(source, Whole) for source in self.sources)


def load_net(
    weights: Path | str, device: torch.device, *, size: int | None, resize: int | None, precision: str
) -> LoadedNet:
    """The network in a file of train_backbone.py, or of export.py; size, resize and precision (None, "auto"): as it was
    trained.

    weights: a file, or BACKBONE=VALUE (see `resolve_weights`) where only so it is known which network it is of.
    Raises UserError, BackboneError, and ValueError for a file that does not say which network it is of.
    """
    path = Path(weights)
    if format_of(path):
        from vertebra.build.artifact import exported_net

        return exported_net(path, size=size, resize=resize, precision=precision)
    name, value = named_backbone(str(weights))
    state, origin = resolve_weights(value, name)
    if name and not origin.get("backbone"):
        with torch.device("meta"):
            network = create_backbone(name)
        state, origin = fitted(network, state, origin, Path(value))
        classes = len(state.get(f"{network.classifier_name}.weight", ())) or network.num_classes
        origin = {"backbone": {**network.identity(), "num_classes": classes}, **origin}
    identity = origin.get("backbone")
    if not identity:
        raise ValueError(
            f"{path} does not name its backbone, as weights of train_backbone.py do; write BACKBONE=FILE, such as "
            f"r50={path}"
        )
    if name and name != identity["name"]:
        raise ValueError(f"{value} holds weights of {identity['name']}, not of {name}")
    trained = origin.get("protocol", {})
    view = {name: trained[f"input.{name}"] for name in ("size", "resize") if f"input.{name}" in trained}
    view["size"] = trained.get("input.test_size") or view.get("size")  # a training may use smaller crops than the test
    view = {name: value for name, value in view.items() if value is not None}
    view |= {name: value for name, value in (("size", size), ("resize", resize)) if value is not None}
    sides = validated(ClassificationInput, view, "--size and --resize")
    kind = trained.get("precision", "auto") if precision == "auto" else precision
    backbone = create_backbone(
        identity["name"],
        num_classes=int(identity["num_classes"]),
        width=identity.get("width") or 1.0,
        shortcut=identity.get("shortcut") or "B",
        stride_in=identity.get("stride_in") or "3x3",
    )
    adopt_identity(origin, backbone, path)
    load_into(backbone, state, path)
    map_side(backbone, sides.size)  # refuses a size of which nothing is left, before any image is read
    names = origin.get("class_names")
    return LoadedNet(
        path=path,
        backbone=backbone.to(device).eval(),
        size=sides.size,
        resize=sides.resize,
        precision=precisions.resolve(kind, device),
        class_names=None if names is None else tuple(names),
    )


def common_classes(nets: Sequence[LoadedNet], names: Sequence[str], place: object) -> tuple[str, ...]:
    """The classes that all networks and the data set know. names: the data set's, none for unlabelled images.

    Raises ValueError where they differ.
    """
    known = [net for net in nets if net.class_names is not None]
    if not names and known:
        names, place = known[0].class_names or (), known[0].path
    for net in known:
        check_classes(net.class_names or (), net.path, names, place)
    for net in nets:
        if names and len(names) != net.backbone.num_classes:
            raise ValueError(f"{net.path} has {net.backbone.num_classes} classes, and {place} has {len(names)}")
    return tuple(names) or tuple(str(place) for place in range(nets[0].backbone.num_classes))


def plan_views(
    nets: Sequence[LoadedNet],
    kinds: Sequence[str],
    device: torch.device,
    *,
    flip: bool | None = None,
    scales: Sequence[int] = (),
    ensemble: bool = False,
    batch: int = 64,
) -> ViewPlan:
    """Every network by every kind of view, and with `ensemble` all networks together by each.

    kinds: 1crop, 10crop, dense, multiscale. flip: average with the mirrored image; None: as the papers (1crop does
    not, dense and multiscale do, 10crop has its own mirror images). scales: shorter sides of multiscale; none: the
    paper's, in proportion to the network's size. batch: images of that size in one forward.
    Raises RecipeError for scales that the network cannot be slid over.
    """
    sources: dict[Source, int] = {}
    results: list[NetworkView | Ensemble] = []
    facts: list[dict[str, Any]] = []
    for kind in kinds:
        first = len(results)
        for net in nets:
            if kind in WHOLE_IMAGES and not isinstance(net.backbone, Backbone):
                raise RecipeError(f"--views {kind} slides a network over whole images, and {net.path} takes one size")
            wanted = _sources(net, kind, scales)
            for source in wanted:
                sources.setdefault(source, len(sources))
            mirrored = flip if flip is not None and kind != "10crop" else kind != "1crop"
            results.append(
                NetworkView(
                    Dense(net.backbone, net.size) if kind in WHOLE_IMAGES else net.backbone,
                    tuple(sources[source] for source in wanted),
                    flip=mirrored,
                    autocast=autocast_of(device, net.precision),
                    pixels_at_once=batch * net.size**2,
                )
            )
            facts.append(
                {
                    "weights": str(net.path),
                    "backbone": net.backbone.name,
                    "view": kind,
                    "flip": mirrored,
                    "sides": [source.shorter for source in wanted],
                    "size": net.size,
                    "precision": net.precision,
                }
            )
        if ensemble:
            members = tuple(range(first, len(results)))
            results.append(Ensemble(members))
            facts.append({"weights": [facts[member]["weights"] for member in members], "view": kind})
    return ViewPlan(tuple(sources), tuple(results), tuple(facts))


def _sources(net: LoadedNet, kind: str, scales: Sequence[int]) -> list[Source]:
    if kind == "dense":
        return [Whole(_large_enough(net, net.resize, "--resize"))]
    if kind == "multiscale":
        paper = [round(scale * net.size / PAPER_SIZE) for scale in PAPER_SCALES]
        return [Whole(_large_enough(net, scale, "--scales")) for scale in dict.fromkeys(scales or paper)]
    return [Crops(net.size, net.resize, corners=kind == "10crop")]


def _large_enough(net: LoadedNet, scale: int, flag: str) -> int:
    if scale < net.size:
        raise RecipeError(
            f"{flag} {scale} is too small for {net.path}: a network for {net.size} px can be slid over images with a "
            f"shorter side of {net.size} px or more (--size sets another size)"
        )
    return scale
