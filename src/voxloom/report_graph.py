"""The workflow's graph of rules: read from dot text, laid out in layers, drawn."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from voxloom.deferred import Deferred
from voxloom.errors import FormatError
from voxloom.figures import COLOURS, INK, PAGE_WIDTH_IN, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Outline
else:
    FancyArrowPatch = Deferred("matplotlib.patches", "FancyArrowPatch")
    FancyBboxPatch = Deferred("matplotlib.patches", "FancyBboxPatch")
    Outline = Deferred("matplotlib.path", "Path")

NODE = re.compile(r'^\s*"?(\w+)"?\s*\[.*?label\s*=\s*"((?:[^"\\]|\\.)*)"')
EDGE = re.compile(r'^\s*"?(\w+)"?\s*->\s*"?(\w+)"?')


def read_rulegraph(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    r"""Rules and arrows of `snakemake --rulegraph`.

    Parameters
    ----------
    text : str
        Graph in the dot language as Snakemake prints it: one node or edge a line.

    Returns
    -------
    rules : list of str
        Names in the file's order, each once.
    edges : list of (str, str)
        (producer, consumer), each once.

    Raises
    ------
    FormatError
        If the text is not such a graph.

    Examples
    --------
    >>> read_rulegraph('digraph d {\n 0[label = "all"];\n 1[label = "train"];\n 1 -> 0\n}')
    (['all', 'train'], [('train', 'all')])
    """
    if "digraph" not in text:
        raise FormatError(f"expected the dot text that 'snakemake --rulegraph' prints, got {text[:40]!r}")
    names: dict[str, str] = {}
    edges: list[tuple[str, str]] = []
    for line in text.splitlines():
        if edge := EDGE.match(line):
            edges.append((edge[1], edge[2]))
        elif node := NODE.match(line):
            names[node[1]] = node[2].replace('\\"', '"').split("\\n")[0]
    unknown = sorted({end for edge in edges for end in edge} - set(names))
    if unknown:
        raise FormatError(f"the rule graph has arrows at nodes that it does not name: {', '.join(unknown)}")
    rules = list(dict.fromkeys(names.values()))
    return rules, list(dict.fromkeys((names[a], names[b]) for a, b in edges if names[a] != names[b]))


def layers_of(rules: Sequence[str], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Layer of every rule: 0 where nothing comes before, else one more than the latest of what it takes.

    Parameters
    ----------
    rules : sequence of str
    edges : iterable of (str, str)
        (producer, consumer), both in `rules`.

    Returns
    -------
    layers : dict
        Rule to layer.

    Raises
    ------
    FormatError
        If the arrows go round in a circle.

    Examples
    --------
    >>> layers_of(["a", "b", "c"], [("a", "b"), ("b", "c"), ("a", "c")])
    {'a': 0, 'b': 1, 'c': 2}
    """
    edges = list(edges)
    layers = dict.fromkeys(rules, 0)
    for _ in range(len(layers) + 1):
        changed = False
        for producer, consumer in edges:
            if layers[consumer] <= layers[producer]:
                layers[consumer] = layers[producer] + 1
                changed = True
        if not changed:
            return layers
    raise FormatError("the rule graph has a circle; a workflow's graph has none")


def _with_waypoints(
    layers: Mapping[str, int], edges: Sequence[tuple[str, str]]
) -> tuple[list[list[str]], list[list[str]]]:
    """Members of every layer, and every edge as a chain with one waypoint in each layer that it crosses."""
    columns: list[list[str]] = [[] for _ in range(max(layers.values(), default=-1) + 1)]
    for rule, layer in layers.items():
        columns[layer].append(rule)
    chains = []
    for producer, consumer in edges:
        chain = [producer]
        for layer in range(layers[producer] + 1, layers[consumer]):
            waypoint = f"{producer}\0{consumer}\0{layer}"
            columns[layer].append(waypoint)
            chain.append(waypoint)
        chains.append([*chain, consumer])
    return columns, chains


def _crossings(columns: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> int:
    place = {name: index for column in columns for index, name in enumerate(column)}
    layer = {name: index for index, column in enumerate(columns) for name in column}
    count = 0
    for index, (a, b) in enumerate(links):
        for c, d in links[index + 1 :]:
            if layer[a] == layer[c] and (place[a] - place[c]) * (place[b] - place[d]) < 0:
                count += 1
    return count


def lay_out(rules: Sequence[str], edges: Sequence[tuple[str, str]]) -> tuple[dict[str, tuple[float, float]], list]:
    """Places for a graph's nodes: layers from left to right, few crossings.

    Parameters
    ----------
    rules : sequence of str
    edges : sequence of (str, str)

    Returns
    -------
    places : dict
        Rule to (layer, height); heights are centred on 0 and at least 1 apart inside a layer.
    routes : list of list of (float, float)
        One list of points an edge, in the order of `edges`: its two ends and the waypoints between.

    Notes
    -----
    Longest-path layers, then sweeps that sort each layer by the mean place of its neighbours, keeping the order with
    the fewest crossings, after [1]_. The order is a function of the input alone.

    References
    ----------
    .. [1] Sugiyama, Tagawa, Toda (1981). IEEE Trans. Syst. Man Cybern. 11(2).
    """
    columns, chains = _with_waypoints(layers_of(rules, edges), edges)
    links = list(dict.fromkeys(pair for chain in chains for pair in itertools.pairwise(chain)))
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for a, b in links:
        after.setdefault(a, []).append(b)
        before.setdefault(b, []).append(a)
    best, fewest = [list(column) for column in columns], _crossings(columns, links)
    for sweep in range(12):
        neighbours = before if sweep % 2 == 0 else after
        order = range(len(columns)) if sweep % 2 == 0 else reversed(range(len(columns)))
        for index in order:
            height = {name: place - (len(c) - 1) / 2 for c in columns for place, name in enumerate(c)}
            means = {
                name: sum(height[n] for n in neighbours[name]) / len(neighbours[name]) if name in neighbours
                else height[name]
                for name in columns[index]
            }  # fmt: skip
            columns[index].sort(key=means.__getitem__)
        if (crossings := _crossings(columns, links)) < fewest:
            best, fewest = [list(column) for column in columns], crossings
    spots = _settle(best, before, after)
    places = {rule: spots[rule] for rule in rules}
    return places, [[spots[name] for name in chain] for chain in chains]


def _settle(
    columns: Sequence[Sequence[str]], before: Mapping[str, list[str]], after: Mapping[str, list[str]]
) -> dict[str, tuple[float, float]]:
    """Heights near the mean of a node's neighbours, in the given order; rules 1 apart, waypoints 0.5."""
    height = {name: place - (len(column) - 1) / 2 for column in columns for place, name in enumerate(column)}
    for sweep in range(8):
        for column in columns if sweep % 2 == 0 else list(reversed(columns)):
            wanted = []
            for name in column:
                near = [*before.get(name, ()), *after.get(name, ())]
                wanted.append(sum(height[n] for n in near) / len(near) if near else height[name])
            placed: list[float] = []
            for index, target in enumerate(wanted):
                boxes = sum("\0" not in name for name in column[max(index - 1, 0) : index + 1])
                apart = 0.5 + 0.25 * boxes
                placed.append(max(target, placed[-1] + apart) if placed else target)
            shift = (sum(wanted) - sum(placed)) / max(len(placed), 1)
            height.update({name: spot + shift for name, spot in zip(column, placed, strict=True)})
    return {name: (float(layer), height[name]) for layer, column in enumerate(columns) for name in column}


def implied_edges(edges: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Arrows that a longer way through the graph implies.

    Parameters
    ----------
    edges : sequence of (str, str)
        (producer, consumer), without a circle.

    Returns
    -------
    implied : set of (str, str)

    Examples
    --------
    >>> implied_edges([("a", "b"), ("b", "c"), ("a", "c")])
    {('a', 'c')}
    """
    after: dict[str, set[str]] = {}
    for producer, consumer in edges:
        after.setdefault(producer, set()).add(consumer)

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(after.get(start, ()))
        while waiting:
            rule = waiting.pop()
            if rule not in seen:
                seen.add(rule)
                waiting.extend(after.get(rule, ()))
        return seen

    beyond = {rule: reachable(rule) for rule in after}
    return {
        (producer, consumer)
        for producer, consumer in edges
        if any(consumer in beyond.get(other, ()) for other in after[producer] if other != consumer)
    }


def _curve(route: Sequence[tuple[float, float]], *, half: float) -> Outline:
    """A smooth line from the right side of the first box to the left side of the last."""
    points = [(route[0][0] + half, route[0][1])]
    codes = [Outline.MOVETO]
    for index, (x, y) in enumerate(route[1:], start=1):
        is_end = index == len(route) - 1
        into = (x - half - 0.02, y) if is_end else (x - 0.2, y)
        x0, y0 = points[-1]
        middle = (x0 + into[0]) / 2
        points += [(middle, y0), (middle, y), into]
        codes += [Outline.CURVE4] * 3
        if not is_end:
            points.append((x + 0.2, y))
            codes.append(Outline.LINETO)
    return Outline(points, codes)


@styled
def rulegraph_figure(rules: Sequence[str], edges: Sequence[tuple[str, str]]) -> Figure:
    """The rules as boxes from left to right, arrows from what makes a file to what takes it.

    Parameters
    ----------
    rules : sequence of str
    edges : sequence of (str, str)
        (producer, consumer).

    Returns
    -------
    figure : Figure
        Arrows that a longer way implies are fainter. What nothing else takes has another colour.
    """
    places, routes = lay_out(rules, edges)
    heights = [spot[1] for route in routes for spot in route] + [spot[1] for spot in places.values()]
    low, high = min(heights, default=0.0), max(heights, default=0.0)
    last = max((spot[0] for spot in places.values()), default=0.0)
    half = 0.36
    figure = new_figure(PAGE_WIDTH_IN, max(1.2, 0.5 * (high - low + 1.4)))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-half - 0.1, last + half + 0.1), ylim=(high + 0.7, low - 0.7))
    axes.axis("off")
    implied = implied_edges(edges)
    for edge, route in sorted(zip(edges, routes, strict=True), key=lambda pair: pair[0] not in implied):
        is_implied = edge in implied
        axes.add_patch(
            FancyArrowPatch(
                path=_curve(route, half=half),
                arrowstyle="-|>",
                mutation_scale=6 if is_implied else 9,
                color="#b9bec4" if is_implied else INK,
                linewidth=0.8 if is_implied else 1.3,
                shrinkA=0,
                shrinkB=0,
            )
        )
    longest = max((len(part) for rule in rules for part in rule.split("_")), default=1)
    width_pt = 72 * PAGE_WIDTH_IN * 2 * half / (last + 2 * half + 0.2)
    takers = {producer for producer, _ in edges}
    for rule, (x, y) in places.items():
        axes.add_patch(
            FancyBboxPatch(
                (x - half, y - 0.34),
                2 * half,
                0.68,
                boxstyle="round,pad=0,rounding_size=0.1",
                facecolor="#eef4f9" if rule in takers else "#fbf0e8",
                edgecolor=COLOURS[0] if rule in takers else COLOURS[1],
                linewidth=1.2,
            )
        )
        size = min(9.0, 0.92 * width_pt / (0.62 * (longest + 1)))
        axes.text(x, y, rule.replace("_", "_\n"), ha="center", va="center", fontsize=size, linespacing=1.0)
    return figure
