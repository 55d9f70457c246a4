import torch

from flows import MadeSpec, build
from flows.training.weight_average import WeightAverage


def small():
    return build(MadeSpec(hidden=[4]), 3, seed=0)


def test_it_follows_the_weights_with_its_decay_once_the_first_steps_are_over():
    flow = small()
    average = WeightAverage(flow, 0.9)
    before = average.tensors()
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(1.0)
    average.follow(1000)
    for name, value in average.tensors().items():
        torch.testing.assert_close(value, before[name] + 0.1)


def test_the_first_steps_are_soon_forgotten():
    flow = small()
    average = WeightAverage(flow, 0.999)
    before = average.tensors()
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(1.0)
    average.follow(1)
    for name, value in average.tensors().items():
        torch.testing.assert_close(value, before[name] + 9 / 11)


def test_it_stands_in_for_the_weights_for_a_while_only():
    flow = small()
    average = WeightAverage(flow, 0.5)
    averaged = average.tensors()
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(1.0)
    kept = {name: weight.clone() for name, weight in flow.named_parameters()}
    with average.applied():
        for name, weight in flow.named_parameters():
            assert torch.equal(weight, averaged[name])
    for name, weight in flow.named_parameters():
        assert torch.equal(weight, kept[name])
    assert all(torch.equal(value, averaged[name]) for name, value in average.tensors().items())


def test_it_goes_on_from_its_own_tensors():
    flow, other = small(), build(MadeSpec(hidden=[4]), 3, seed=1)
    average, restored = WeightAverage(flow, 0.9), WeightAverage(other, 0.9)
    restored.restore(average.tensors())
    assert all(torch.equal(value, average.tensors()[n]) for n, value in restored.tensors().items())
