"""Selection: which hypotheses are true together; each cell is explained once at most, and the sum of gains is largest.

The hypotheses themselves are made in `cellseg.tracking.hypotheses`. Both solvers are scipy's and exact: a sparse
assignment (Jonker and Volgenant's LAPJVsp) where a cell goes on as one cell, and integer programming (HiGHS) for the
few cells that could have divided and all that compete with them.
"""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from cellseg.tracking.hypotheses import Divisions, Links


def select(links: Links, divisions: Divisions, num_sources: int, num_targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the links, and of the divisions, that explain most.

    Args:
        links, divisions: All gains > 0.
        num_sources, num_targets: Cells on both sides.
    """
    if not len(divisions.parents):
        return assign(links, num_sources, num_targets), np.zeros(0, np.int64)
    parents = np.concatenate([links.sources, divisions.parents, divisions.parents])
    children = num_sources + np.concatenate([links.targets, divisions.firsts, divisions.seconds])
    size = num_sources + num_targets
    graph = coo_array((np.ones(len(parents), bool), (parents, children)), shape=(size, size))
    num_groups, group = connected_components(graph, directed=False)
    divides = np.zeros(num_groups, bool)
    divides[group[divisions.parents]] = True
    hard = divides[group[links.sources]]
    easy, hard = np.flatnonzero(~hard), np.flatnonzero(hard)
    chosen = easy[assign(links.where(easy), num_sources, num_targets)]
    taken, divided = _program(links.where(hard), divisions, num_sources)
    return np.concatenate([chosen, hard[taken]]), divided


def assign(links: Links, num_sources: int, num_targets: int) -> np.ndarray:
    """Positions of the links of the best one-to-one assignment; a cell may stay alone."""
    if not len(links.sources):
        return np.zeros(0, np.int64)
    # The matching must give every row a column: row i also has a column to itself, for nothing. All gain 1 more,
    # because a sparse table does not tell a gain of 0 from none.
    own = np.arange(num_sources)
    table = csr_array(
        (
            np.concatenate([1 + links.gains, np.ones(num_sources)]),
            (np.concatenate([links.sources, own]), np.concatenate([links.targets, num_targets + own])),
        ),
        shape=(num_sources, num_targets + num_sources),
    )
    rows, columns = min_weight_full_bipartite_matching(table, maximize=True)
    real = columns < num_targets
    # The links stand in order of source and target.
    codes = links.sources * num_targets + links.targets
    return np.searchsorted(codes, rows[real].astype(np.int64) * num_targets + columns[real])


def _program(links: Links, divisions: Divisions, num_sources: int) -> tuple[np.ndarray, np.ndarray]:
    num_links, num_divisions = len(links.sources), len(divisions.parents)
    link, division = np.arange(num_links), num_links + np.arange(num_divisions)
    cells = np.concatenate(
        [
            links.sources,
            num_sources + links.targets,
            divisions.parents,
            num_sources + divisions.firsts,
            num_sources + divisions.seconds,
        ]
    )
    used, row = np.unique(cells, return_inverse=True)
    column = np.concatenate([link, link, division, division, division])
    once = coo_array((np.ones(len(row)), (row, column)), shape=(len(used), num_links + num_divisions))
    answer = milp(
        -np.concatenate([links.gains, divisions.gains]),
        constraints=LinearConstraint(once.tocsr(), -np.inf, 1),
        integrality=np.ones(num_links + num_divisions),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if answer.x is None:
        raise RuntimeError(f"HiGHS found no links: {answer.message}")
    chosen = answer.x > 0.5
    return np.flatnonzero(chosen[:num_links]), np.flatnonzero(chosen[num_links:])
