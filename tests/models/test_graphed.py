"""CUDA graphs of networks: the network's logits for batches of the recorded shape."""

import pytest
import torch

from vitresnas.errors import InputError
from vitresnas.models import GraphedNetwork, create_model, optimise_for_inference
from vitresnas.space import SPACES


def test_images_that_are_not_on_a_gpu_are_refused():
    network = optimise_for_inference(create_model(SPACES["digits"].smallest).eval())
    with pytest.raises(InputError, match=r"NVIDIA GPU and the images are on cpu"):
        GraphedNetwork(network, torch.zeros(2, 3, 16, 16))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_batch_of_the_recorded_shape_gets_its_own_logits(dtype):
    model = create_model(SPACES["digits"].largest).eval().cuda()
    network = optimise_for_inference(model, dtype=dtype)
    batches = torch.randn(3, 4, 3, 16, 16, device="cuda", dtype=dtype)
    graphed = GraphedNetwork(network, batches[0])
    found = [graphed(images) for images in batches]
    for images, logits in zip(batches, found, strict=True):
        torch.testing.assert_close(logits, network(images))


@pytest.mark.gpu
def test_another_batch_size_type_or_network_that_looks_at_its_images_is_refused():
    network = optimise_for_inference(create_model(SPACES["digits"].smallest).eval().cuda())
    images = torch.randn(4, 3, 16, 16, device="cuda")
    graphed = GraphedNetwork(network, images)
    for other in (images[:2], images.double(), images.cpu()):
        with pytest.raises(InputError, match=r"recorded for \(4, 3, 16, 16\) torch.float32"):
            graphed(other)
    with pytest.raises(InputError, match="cannot be recorded"):
        GraphedNetwork(lambda x: x * float(x.sum()), images)
