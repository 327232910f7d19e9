"""Image networks with one contract: stages with names and strides, logits, and the cut at a stride."""

from backbones.base import Backbone, BackboneError
from backbones.catalog import create_backbone, list_backbones
from backbones.chain import FeatureSpec
from backbones.cut import Cut

__all__ = ["Backbone", "BackboneError", "Cut", "FeatureSpec", "create_backbone", "list_backbones"]
