"""Tracking: labels over time become tracks, by overlap, distance and size, with divisions and gaps.

Folders are read and written in `cellseg.tracks` and `cellseg.following`; tracks are scored in `cellseg.metrics` and
measured in `cellseg.measuring`.
"""

from cellseg.tracking.hypotheses import Costs
from cellseg.tracking.lineage import Lineage
from cellseg.tracking.linking import USUAL, Options, follow

__all__ = ["USUAL", "Costs", "Lineage", "Options", "follow"]
