"""The teacher of a self-distillation is the start and never moves, and without changes it is the student at first."""

import torch

from medssl.nn.encoder import ResEncoder
from medssl.objectives.distillation.distil import Config, Distil
from tests.objectives.test_contract import crops


def objective(**settings):
    torch.manual_seed(0)
    return Distil(Config(**settings), ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2))


def test_the_teacher_stays_bitwise_what_the_training_began_with():
    model = objective()
    before = [weight.clone() for weight in model.teacher.parameters()]
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], 0.1)
    for _ in range(2):
        model.step(crops(1)).loss.backward()
        optimizer.step()
        model.after_step()
    assert all(torch.equal(*pair) for pair in zip(before, model.teacher.parameters(), strict=True))
    assert any(
        not torch.equal(*pair) for pair in zip(model.encoder.parameters(), model.teacher.parameters(), strict=True)
    )


def test_a_student_that_equals_its_teacher_has_no_loss_on_the_same_crops():
    assert objective(strength=0.0).step(crops(1)).loss == 0
    assert objective(strength=1.0).step(crops(1)).loss > 1e-3
