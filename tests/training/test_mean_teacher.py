"""Unlabelled crops teach through a teacher that gets no gradient, and the teacher is what is kept."""

from dataclasses import replace

import pytest
import torch

from medssl.data.classes import UNKNOWN
from medssl.data.crops import Crops
from medssl.data.transforms.intensity import vary
from medssl.nn.encoder import ResEncoder
from medssl.tasks.segment import Config, Segment
from medssl.training.config import Plan
from medssl.training.semi_supervised.mean_teacher import Taught, Unlabelled

SIDE = 12
PLAN = Plan(epochs=1, steps=40, ema=0.9)


def taught(name: str, linear: bool = True, **how) -> Taught:
    torch.manual_seed(0)
    student = Segment(Config(linear=linear), ResEncoder((4, 8), (1, 2)), 2, (SIDE,) * 3)
    return Taught(student, Unlabelled(name=name, **how), PLAN)


def crops(labelled: int, bare: int, seed: int = 0) -> Crops:
    """Bright boxes at random places, drawn or not."""
    g = torch.Generator().manual_seed(seed)
    b = labelled + bare
    label = torch.zeros(b, 1, *(SIDE,) * 3, dtype=torch.long)
    for n, (i, j, k) in enumerate(torch.randint(0, SIDE - 5, (b, 3), generator=g).tolist()):
        label[n, 0, i : i + 5, j : j + 5, k : k + 5] = 1
    x = (0.3 + 0.3 * label + 0.1 * torch.randn(label.shape, generator=g)).clamp(0, 1)[:, :, None]
    label[labelled:] = UNKNOWN
    where, eye = torch.zeros(b, 1, 3, dtype=torch.long), torch.eye(4).expand(b, 1, 4, 4)
    return Crops(x, where, torch.full((b, 3), SIDE), eye, torch.arange(b), label)


def trained(of: Taught, batches: list[Crops], steps: int = 40) -> Taught:
    optimizer = torch.optim.AdamW([w for w in of.parameters() if w.requires_grad], lr=1e-2)
    for n in range(steps):
        optimizer.zero_grad()
        of.step(batches[n % len(batches)]).loss.backward()
        optimizer.step()
        of.after_step()
    return of


@pytest.mark.parametrize("name", ["mean-teacher", "pseudo"])
def test_the_teacher_gets_no_gradient_and_follows_the_student(name):
    of = taught(name, sure=0.0)
    first = [weight.clone() for weight in of.teacher.parameters()]
    of.step(crops(2, 2)).loss.backward()
    assert all(weight.grad is None and not weight.requires_grad for weight in of.teacher.parameters())
    assert all(weight.grad is not None for weight in of.student.parameters())
    with torch.no_grad():
        for weight in of.student.parameters():
            weight += 1
    of.after_step()
    for was, mean, now in zip(first, of.teacher.parameters(), of.student.parameters(), strict=True):
        assert torch.allclose(mean, (was + now) / 2, atol=1e-6)  # the plain mean at first
    of.taken += 1000
    before = [weight.clone() for weight in of.teacher.parameters()]
    of.after_step()
    for was, mean, now in zip(before, of.teacher.parameters(), of.student.parameters(), strict=True):
        assert torch.allclose(mean, 0.9 * was + 0.1 * now, atol=1e-6)


def test_what_is_kept_and_validated_is_the_teacher():
    of = taught("mean-teacher")
    with torch.no_grad():
        for weight in of.student.parameters():
            weight.zero_()
    assert all(w.abs().sum() > 0 for w in of.transferable()["encoder"].parameters() if w.ndim > 1)
    x = crops(1, 0).x[:, 0]
    assert torch.equal(of.probability(x), of.teacher.probability(x))


def test_the_encoder_stands_first_among_the_weights_that_learn():
    """The plan gives the encoder its own rate by the name of its weights."""
    of = taught("mean-teacher")
    own = {id(weight) for name, weight in of.named_parameters() if name.startswith("encoder.")}
    assert own == {id(weight) for weight in of.student.encoder.parameters()}


@pytest.mark.parametrize("name", ["mean-teacher", "pseudo"])
def test_labelled_crops_alone_are_the_plain_task(name):
    of, batch = taught(name), crops(2, 0)
    assert torch.equal(of.step(batch).loss, of.student.step(batch).loss)


@pytest.mark.parametrize("name", ["mean-teacher", "pseudo"])
def test_the_weight_of_the_unlabelled_grows_from_little_to_all(name):
    of, batch = taught(name, grow=0.5, weight=2.0, mixup=0, sure=0), crops(2, 2)
    shares = []
    for taken in (0, 10, 20, 40):
        of.taken.fill_(taken)
        of.draws.made.zero_()
        step = of.step(batch)
        shares.append(((step.loss - of.student.step(crops(2, 2)).loss) / step.logs["unlabelled"]).item())
    assert shares[0] < 0.02 < shares[1] < shares[2] == pytest.approx(2.0, rel=1e-3) == shares[3]


def test_only_sure_voxels_become_labels():
    of, batch = taught("pseudo", sure=0.9, mixup=0), crops(1, 2)
    of.teacher.heads[0].conv.weight.data.zero_()
    of.teacher.heads[0].conv.bias.data = torch.tensor([0.0, 1.0])
    assert of.step(batch).logs["unlabelled"] == 0  # 0.73 is not sure enough
    of.teacher.heads[0].conv.bias.data = torch.tensor([0.0, 5.0])
    everything = replace(crops(1, 2), label=torch.ones_like(batch.label))
    rows = Crops(**{name: None if v is None else v[1:] for name, v in vars(everything).items()})
    assert torch.allclose(of.step(batch).logs["unlabelled"], of.student.step(rows).loss.detach())


def test_mixed_crops_carry_both_labels_in_their_shares():
    of, batch = taught("pseudo", sure=0.0, mixup=0.4), crops(1, 1)
    seen: list[Crops] = []
    step = of.student.step
    of.student.step = lambda one: seen.append(one) or step(one)
    of.step(batch)
    _, theirs, own = seen
    share = ((theirs.x - batch.x[1:]) / (batch.x[:1] - batch.x[1:])).nanmedian()
    assert 0 < share < 1 and torch.equal(theirs.x, own.x)
    assert torch.allclose(theirs.x, share * batch.x[:1] + (1 - share) * batch.x[1:], atol=1e-4)
    assert torch.equal(theirs.label, batch.label[:1]) and (own.label >= 0).all()


def test_draws_are_repeated_by_the_same_seed():
    batch = crops(1, 1)
    for name in ("mean-teacher", "pseudo"):
        a, b = (taught(name, sure=0.5).step(batch).loss for _ in range(2))
        assert torch.equal(a, b)


def other_look(crops_: Crops, seed: int) -> Crops:
    return replace(crops_, x=vary(crops_.x[:, 0], torch.Generator().manual_seed(seed), 0.6)[:, None])


def beside(a: Crops, b: Crops) -> Crops:
    rows = {name: (getattr(a, name), getattr(b, name)) for name in vars(a)}
    return Crops(**{name: None if None in pair else torch.cat(pair) for name, pair in rows.items()})


def score(of: Taught, test: Crops) -> float:
    found = of.probability(test.x[:, 0]).argmax(1)
    return (2 * (found * test.label[:, 0]).sum() / (found.sum() + test.label.sum())).item()


def test_unlabelled_crops_of_other_looks_teach_what_the_one_label_cannot():
    """All test crops have other intensities than the labelled one; those of the unlabelled crops vary as well.

    The head is not linear: a linear one is so little troubled by other looks that there is nothing left to teach.
    """
    shown, test = crops(1, 0), other_look(crops(16, 0, 99), 5)
    both = [beside(shown, other_look(crops(0, 1, seed), seed)) for seed in range(1, 9)]
    alone = score(trained(taught("mean-teacher", linear=False), [shown], 60), test)
    assert score(trained(taught("mean-teacher", linear=False, weight=4.0), both, 60), test) > alone + 0.3
