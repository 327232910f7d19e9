"""detectron2's GeneralizedRCNN on one of our backbones, as a detector of ours: the same batches in, losses and
detections out, so that our loop trains it and our evaluation tests it.

Legend: N images, D detections an image (padded), K the masks of a batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backbones import Backbone
from detectors.structures import Detections, ImageBatch, Targets
from vertebra.build.detector import PYRAMID_KEYS
from vertebra.build.detectron2_config import STAGES, detectron2_config, nested
from vertebra.ground.errors import UserError
from vertebra.recipes.schema_detection import DetectionRecipe

OUR_NAMES = {"loss_rpn_loc": "loss_rpn_box", "loss_cls": "loss_box_cls"}


def engine_version() -> str:
    """Return detectron2 and its version, as the protocol has it."""
    from vertebra.detectron2 import VERSION

    return f"detectron2 {VERSION}"


class Detectron2Detector(nn.Module):
    """Its detector of the recipe on `backbone`: anchors, RoIAlign, matching and how heads begin are its own."""

    def __init__(self, recipe: DetectionRecipe, backbone: Backbone, classes: int) -> None:
        # First, as it says what to do where detectron2 is missing.
        from vertebra.detectron2 import RegionNetwork, VertebraBackbone, VertebraROIHeads

        super().__init__()
        from detectron2.config import CfgNode, get_cfg
        from detectron2.modeling import FPN, GeneralizedRCNN
        from detectron2.modeling.backbone.fpn import LastLevelMaxPool
        from detectron2.modeling.proposal_generator import RPN
        from detectron2.modeling.roi_heads import StandardROIHeads

        own, config = recipe.model, get_cfg()
        config.merge_from_other_cfg(CfgNode(nested(detectron2_config(recipe, classes))))
        norm = backbone.pixel_norm
        heads: Any = StandardROIHeads
        if own.body == "fpn":
            bottom_up = VertebraBackbone(backbone.maps(PYRAMID_KEYS), STAGES, bgr=False)
            body = FPN(bottom_up, STAGES, own.fpn_channels, config.MODEL.FPN.NORM, LastLevelMaxPool())
        elif own.body == "dc5":
            body = VertebraBackbone(backbone.trunk(list(backbone.feature_specs)[-1]), ["res5"], bgr=False)
        else:
            trunk, head = backbone.cut(own.cut_stride, own.roi_size)
            body = VertebraBackbone(trunk, ["res4"], bgr=False)
            config.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = head.roi_size
            heads = VertebraROIHeads.above(RegionNetwork(head))
        shapes = body.output_shape()
        config.MODEL.ROI_BOX_HEAD.CONV_DIM = next(iter(shapes.values())).channels
        self.model = GeneralizedRCNN(
            backbone=body,
            proposal_generator=RPN(config, shapes),
            roi_heads=heads(config, shapes),
            pixel_mean=norm.mean_values,
            pixel_std=norm.std_values,
            input_format="RGB",
        )
        self.detections, self.proposals = recipe.test.detections, own.proposals[1]

    def forward(self, images: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        """The losses under our names. What it draws follows from seed, iteration and image, as all our draws do."""
        from detectron2.utils.events import EventStorage

        device = images.pixels_N3HW.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), EventStorage(0):
            torch.manual_seed(int(targets.draw_seeds_N[0]))
            try:
                losses = self.model(self._inputs(images, targets))
            except FloatingPointError as error:
                raise UserError("detectron2", str(error).rstrip("."), "lower solver.lr, or warm up longer") from error
        return {OUR_NAMES.get(name, name): loss for name, loss in losses.items()}

    @torch.no_grad()
    def detect(self, images: ImageBatch) -> Detections:
        """Return what is in the images, best first. Call `.eval()` first."""
        found = self.model.inference(self._inputs(images), do_postprocess=False)
        return Detections(
            boxes_ND4=self._padded([one.pred_boxes.tensor for one in found]),
            scores_ND=self._padded([one.scores for one in found]),
            labels_ND=self._padded([one.pred_classes + 1 for one in found]),
            valid_ND=self._padded([torch.ones_like(one.scores, dtype=torch.bool) for one in found]),
            masks_NDMM=self._padded([one.pred_masks[:, 0].float() for one in found])
            if found[0].has("pred_masks")
            else None,
        )

    def _padded(self, values: list[Tensor]) -> Tensor:
        """Stack what there is of each image, followed by zeros."""
        stacked = values[0].new_zeros(len(values), self.detections, *values[0].shape[1:])
        for place, value in zip(stacked, values):
            place[: len(value)] = value
        return stacked

    def _inputs(self, images: ImageBatch, targets: Targets | None = None) -> list[dict[str, Any]]:
        """The batch as detectron2 takes it; truths that are to be ignored are not there (the schema refuses them)."""
        from detectron2.structures import BitMasks, Boxes, Instances

        inputs: list[dict[str, Any]] = []
        for n, (height, width) in enumerate(images.sizes_hw):
            inputs.append({"image": images.pixels_N3HW[n, :, :height, :width]})
            if targets is None:
                continue
            keep_G = targets.valid_NG[n] & ~targets.ignore_NG[n]
            truths = Instances((height, width))
            truths.gt_boxes = Boxes(targets.boxes_NG4[n][keep_G])
            truths.gt_classes = targets.labels_NG[n][keep_G] - 1
            if targets.masks is not None:
                masks = targets.masks
                numbers = zip(masks.image_index_K.tolist(), masks.truth_index_K.tolist())
                own = {g: masks.whole(k, (height, width)) for k, (image, g) in enumerate(numbers) if image == n}
                empty = torch.zeros((height, width), dtype=torch.uint8, device=keep_G.device)
                of_truths = [own.get(g, empty) for g in keep_G.nonzero().flatten().tolist()]
                truths.gt_masks = BitMasks(torch.stack(of_truths) if of_truths else empty[None][:0])
            inputs[-1]["instances"] = truths
        return inputs
