import torch

from flows.bijections.autoregressive.masked import (
    Conditioner,
    hidden_degrees,
    input_degrees,
    made_masks,
    output_mask,
)


def masks_of(dim, hidden, **fields):
    return made_masks(Conditioner(hidden, "tanh", **fields).degrees(dim, 2), 2)


def test_hidden_degrees_rise_and_reach_from_1_to_dim_minus_1():
    for width, dim in [(1, 2), (5, 2), (7, 4), (512, 21), (10, 40)]:
        degrees = hidden_degrees(width, dim)
        assert bool((degrees.diff() >= 0).all())
        assert int(degrees[0]) == 1
        assert width == 1 or int(degrees[-1]) == dim - 1


def test_hidden_units_are_spread_evenly_over_the_degrees():
    counts = torch.bincount(hidden_degrees(512, 21))[1:]
    assert int(counts[1:-1].max() - counts[1:-1].min()) <= 1


def test_output_mask_is_strict():
    degrees = input_degrees(4)
    assert torch.equal(output_mask(degrees, degrees), torch.ones(4, 4).tril(-1))


def test_every_path_through_the_masks_leads_to_a_later_feature():
    for dim, hidden in [(2, [3]), (5, [7]), (6, [9, 4, 11]), (30, [8])]:
        paths = torch.eye(dim)
        for mask in masks_of(dim, hidden):
            paths = mask @ paths
        for half in paths.chunk(2):
            assert torch.equal(half, half.tril(-1))


def test_wide_networks_let_each_output_see_all_features_before_it():
    paths = torch.eye(6)
    for mask in masks_of(6, [50, 50]):
        paths = mask @ paths
    for half in paths.chunk(2):
        assert torch.equal(half > 0, torch.ones(6, 6).tril(-1) > 0)


def test_direct_connections_are_strict_columns_behind_those_of_the_hidden_units():
    degrees = [torch.tensor([3, 1, 4, 2]), torch.tensor([1, 3, 2, 2, 1])]
    *_, plain = made_masks(degrees, 2)
    *_, mask = made_masks(degrees, 2, direct=True)
    assert torch.equal(mask[:, :5], plain)
    order = torch.argsort(degrees[0])
    for half in mask[:, 5:].chunk(2):
        assert torch.equal(half[order][:, order], torch.ones(4, 4).tril(-1))


def test_one_feature_has_no_hidden_layer():
    (mask,) = masks_of(1, [8, 8])
    assert torch.equal(mask, torch.zeros(2, 1))
