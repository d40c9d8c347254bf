"""The ISBI 2012 challenge's scores as a plain Python loop: each step as it is described, and nothing clever.

Sections are lists of rows; what `voxloom` computes is compared with this, in value and in time.
"""

import math
from collections import Counter, deque

Rows = list[list]

EDGES = ((0, -1), (-1, 0), (0, 1), (1, 0))
"""Steps (Y, X) to the left, above, right, below."""
CORNERS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))


def neighbours(rows: Rows, y: int, x: int, steps: tuple = EDGES):
    for dy, dx in steps:
        if 0 <= y + dy < len(rows) and 0 <= x + dx < len(rows[0]):
            yield y + dy, x + dx


def label(mask: Rows, steps: tuple = EDGES) -> tuple[Rows, int]:
    labels = [[0] * len(row) for row in mask]
    count = 0
    for y, row in enumerate(mask):
        for x, is_in in enumerate(row):
            if is_in and not labels[y][x]:
                count += 1
                labels[y][x] = count
                waiting = [(y, x)]
                while waiting:
                    for b, a in neighbours(mask, *waiting.pop(), steps):
                        if mask[b][a] and not labels[b][a]:
                            labels[b][a] = count
                            waiting.append((b, a))
    return labels, count


def thin(interior: Rows) -> Rows:
    line, unseen, mask, queued = 0, -1, -2, -3
    labels = [[unseen] * len(row) for row in interior]
    columns = [(y, x) for x in range(len(interior[0])) for y in range(len(interior))]
    basins, meets_line = 0, False
    for level in (True, False):
        pixels = [(y, x) for y, x in columns if interior[y][x] == level]
        waiting = deque()
        for y, x in pixels:
            labels[y][x] = mask
            if any(labels[b][a] >= 0 for b, a in neighbours(interior, y, x)):
                labels[y][x] = queued
                waiting.append((y, x))
        while waiting:
            y, x = waiting.popleft()
            for b, a in neighbours(interior, y, x):
                other, own = labels[b][a], labels[y][x]
                if other > 0:
                    if own == queued or (own == line and meets_line):
                        labels[y][x] = other
                    elif own > 0 and own != other:
                        labels[y][x] = line
                        meets_line = False
                elif other == line and own == queued:
                    labels[y][x] = line
                    meets_line = True
                elif other == mask:
                    labels[b][a] = queued
                    waiting.append((b, a))
        for pixel in pixels:
            if labels[pixel[0]][pixel[1]] == mask:
                basins += 1
                labels[pixel[0]][pixel[1]] = basins
                waiting = deque([pixel])
                while waiting:
                    for b, a in neighbours(interior, *waiting.popleft()):
                        if labels[b][a] == mask:
                            labels[b][a] = basins
                            waiting.append((b, a))
    return labels


def tables(proposal: Rows, truth: Rows) -> tuple[Counter, Counter, Counter, int]:
    """Pixels of every pair, of every proposed and of every true object, and of 0, where the truth isn't 0."""
    pairs = Counter((t, p) for a, b in zip(truth, proposal, strict=True) for t, p in zip(a, b, strict=True) if t)
    true, proposed = Counter(), Counter()
    for (t, p), count in pairs.items():
        true[t] += count
        proposed[p] += count
    singles = proposed.pop(0, 0)
    return Counter({key: n for key, n in pairs.items() if key[1]}), proposed, true, singles


def rand(proposal: Rows, truth: Rows) -> tuple[int, int, int]:
    pairs, proposed, true, singles = tables(proposal, truth)
    both = sum(n * n for n in pairs.values()) + singles
    return (
        both,
        sum(n * n for n in proposed.values()) + singles - both,
        sum(n * n for n in true.values()) - both,
    )


def information(proposal: Rows, truth: Rows) -> tuple[float, float]:
    pairs, proposed, true, singles = tables(proposal, truth)
    pixels = sum(true.values())
    rest = singles / pixels * math.log(pixels)
    h_true = -sum(n / pixels * math.log(n / pixels) for n in true.values())
    minus_h_proposed = sum(n / pixels * math.log(n / pixels) for n in proposed.values()) - rest
    minus_h_both = sum(n / pixels * math.log(n / pixels) for n in pairs.values()) - rest
    if h_true == 0:
        return 0.0, 1.0
    if minus_h_proposed == 0:
        return 1.0, 0.0
    true_given_proposed = minus_h_proposed - minus_h_both
    proposed_given_true = -h_true - minus_h_both
    return (h_true - true_given_proposed) / h_true, (-minus_h_proposed - proposed_given_true) / -minus_h_proposed


def pixels(proposal: Rows, truth: Rows) -> tuple[int, int, int]:
    pairs = Counter((t, p) for a, b in zip(truth, proposal, strict=True) for t, p in zip(a, b, strict=True))
    return pairs[True, True], pairs[False, True], pairs[True, False]


def is_simple(inside: Rows, y: int, x: int) -> bool:
    around = [[inside[y + dy][x + dx] for dx in (-1, 0, 1)] for dy in (-1, 0, 1)]
    objects, _ = label([[around[b][a] and (b, a) != (1, 1) for a in range(3)] for b in range(3)])
    touching = {objects[1 + dy][1 + dx] for dy, dx in EDGES} - {0}
    _, borders = label([[not around[b][a] and (b, a) != (1, 1) for a in range(3)] for b in range(3)], CORNERS)
    return len(touching) == 1 and borders == 1


def warp(truth: Rows, values: Rows, threshold: float) -> Rows:
    width = len(truth[0]) + 2
    inside = [[False] * width, *([False, *row, False] for row in truth), [False] * width]
    goal = [[False] * width, *([False, *(v > threshold for v in row), False] for row in values), [False] * width]
    before = -1
    while True:
        wrong = [(y, x) for x in range(width) for y in range(len(inside)) if inside[y][x] != goal[y][x]]
        if not wrong or len(wrong) == before:
            return [row[1:-1] for row in inside[1:-1]]
        before = len(wrong)
        for y, x in sorted(wrong, key=lambda at: -abs(values[at[0] - 1][at[1] - 1] - threshold)):
            if is_simple(inside, y, x):
                inside[y][x] = not inside[y][x]


def classify(warped: Rows, goal: Rows) -> Rows:
    """Kinds as numbered by `voxloom.warping`."""
    labels, _ = label(warped)
    kinds = [[0] * len(row) for row in warped]
    for y, row in enumerate(warped):
        for x, is_in in enumerate(row):
            if is_in == goal[y][x]:
                continue
            near = {labels[b][a] for b, a in neighbours(warped, y, x, CORNERS)}
            if len(near) > 2:
                kinds[y][x] = 1 if is_in else 2
            elif len(near) == 2:
                kinds[y][x] = 6 if not is_in else 1 if cuts(warped, y, x) else 5
            elif near <= {0}:
                kinds[y][x] = 3 if is_in else 4
            else:
                kinds[y][x] = 6 if is_in else 5
    return kinds


def cuts(warped: Rows, y: int, x: int) -> bool:
    without = [list(row) for row in warped]
    without[y][x] = False
    labels, _ = label(without)
    return len({labels[b][a] for b, a in neighbours(warped, y, x, CORNERS)}) > 2


def score(truth: Rows, values: Rows, threshold: float) -> dict[str, object]:
    """All measures of a section at a threshold."""
    goal = [[v > threshold for v in row] for row in values]
    objects, thinned = label(truth)[0], thin(goal)
    kinds = classify(warp(truth, values, threshold), goal)
    return {
        "thinned": rand(thinned, objects),
        "information": information(thinned, objects),
        "rand": rand(label(goal)[0], objects),
        "pixels": pixels(goal, truth),
        "mismatches": sum(kind > 0 for row in kinds for kind in row),
        "split_pixels": sum(kind == 1 for row in kinds for kind in row),
        "merger_pixels": sum(kind == 2 for row in kinds for kind in row),
        "splits": label([[kind == 1 for kind in row] for row in kinds])[1],
        "mergers": label([[kind == 2 for kind in row] for row in kinds], CORNERS)[1],
    }
