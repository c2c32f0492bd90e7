import pytest
import torch

from vitresnas.errors import InputError
from vitresnas.models import compile_pieces, create_model
from vitresnas.space import SPACES, operations


def test_compiled_by_pieces_a_network_computes_its_logits(compilations):
    model = create_model(SPACES["digits"].largest).eval()
    images = torch.randn(2, 3, 16, 16)
    run = compile_pieces(model)
    with torch.no_grad():
        torch.testing.assert_close(run(images), model(images))
        assert len(compilations) == len(set(operations(model.architecture)))
        model.head.bias.fill_(7.0)  # the weights are read, not copied
        torch.testing.assert_close(run(images), model(images))
    assert len(compilations) == len(set(operations(model.architecture)))


def test_training_mode_and_other_images_are_refused(compilations):
    model = create_model(SPACES["digits"].smallest)
    with pytest.raises(InputError, match="training mode"):
        compile_pieces(model)
    with pytest.raises(InputError, match="images have shape"):
        compile_pieces(model.eval())(torch.zeros(2, 3, 8, 8))
