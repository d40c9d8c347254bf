import itertools

import pytest
from unit.report_tables import RULEGRAPH

from voxloom.errors import FormatError
from voxloom.report_graph import implied_edges, lay_out, layers_of, read_rulegraph


def test_snakemakes_rulegraph_gives_its_rules_and_arrows():
    rules, edges = read_rulegraph(RULEGRAPH)
    assert rules == ["all", "report", "evaluate", "annotate", "convert"]
    assert ("convert", "annotate") in edges
    assert len(edges) == 6


def test_a_rule_with_wildcards_in_its_label_is_named_by_its_first_line():
    rules, _ = read_rulegraph('digraph d {\n\t0[label = "train\\nmodel: best", color = "1"];\n}')
    assert rules == ["train"]


def test_text_that_is_no_graph_is_refused():
    with pytest.raises(FormatError, match="expected the dot text that 'snakemake --rulegraph' prints, got 'Building"):
        read_rulegraph("Building DAG of jobs...")


def test_an_arrow_at_an_unnamed_node_is_refused():
    with pytest.raises(FormatError, match="arrows at nodes that it does not name: 7"):
        read_rulegraph('digraph d {\n0[label = "all"];\n7 -> 0\n}')


def test_every_arrow_leads_to_a_later_layer():
    rules, edges = read_rulegraph(RULEGRAPH)
    layers = layers_of(rules, edges)
    assert all(layers[producer] < layers[consumer] for producer, consumer in edges)


def test_a_circle_is_refused():
    with pytest.raises(FormatError, match="circle"):
        layers_of(["a", "b"], [("a", "b"), ("b", "a")])


def test_rules_of_one_layer_do_not_overlap():
    edges = [("a", name) for name in "bcdef"] + [(name, "g") for name in "bcdef"] + [("a", "g")]
    places, routes = lay_out(list("abcdefg"), edges)
    heights = sorted(places[name][1] for name in "bcdef")
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 1.0
    assert routes[-1][0] == places["a"]
    assert routes[-1][-1] == places["g"]


def test_crossings_that_another_order_avoids_are_avoided():
    edges = [("a", "d"), ("b", "c")]
    places, _ = lay_out(list("abcd"), edges)
    assert (places["a"][1] - places["b"][1]) * (places["d"][1] - places["c"][1]) > 0


def test_an_arrow_that_a_longer_way_implies_is_told_apart():
    assert implied_edges([("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"), ("a", "c")]) == {("a", "d"), ("a", "c")}
