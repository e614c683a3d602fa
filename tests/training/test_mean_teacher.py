"""A teacher without gradients supervises the student on unlabelled crops, and its weights are kept."""

from dataclasses import replace

import pytest
import torch

from medssl.data.classes import IGNORE_INDEX
from medssl.data.crops import Crops
from medssl.data.transforms.intensity import perturb_intensity
from medssl.nn.collectives import split_generator
from medssl.nn.encoder import ResEncoder
from medssl.tasks.segment import Config, SegmentTask
from medssl.training.config import TrainConfig
from medssl.training.semi_supervised.config import SemiSupervisedConfig
from medssl.training.semi_supervised.copy_paste import draw_boxes, keep_largest_components
from medssl.training.semi_supervised.mean_teacher import MeanTeacher

SIDE = 12
METHODS = ["mean-teacher", "pseudo-label", "copy-paste"]
TRAIN = TrainConfig(epochs=1, steps_per_epoch=40, ema_decay=0.9)


def make_teacher(method: str, preactivation_head: bool = True, **options) -> MeanTeacher:
    torch.manual_seed(0)
    student = SegmentTask(Config(preactivation_head=preactivation_head), ResEncoder((4, 8), (1, 2)), 2, (SIDE,) * 3)
    return MeanTeacher(student, SemiSupervisedConfig(method=method, **options), TRAIN)


def make_crops(labelled: int, unlabelled: int, seed: int = 0) -> Crops:
    """Bright boxes at random positions, with and without labels."""
    g = torch.Generator().manual_seed(seed)
    b = labelled + unlabelled
    label = torch.zeros(b, 1, *(SIDE,) * 3, dtype=torch.long)
    for n, (i, j, k) in enumerate(torch.randint(0, SIDE - 5, (b, 3), generator=g).tolist()):
        label[n, 0, i : i + 5, j : j + 5, k : k + 5] = 1
    x = (0.3 + 0.3 * label + 0.1 * torch.randn(label.shape, generator=g)).clamp(0, 1)[:, :, None]
    label[labelled:] = IGNORE_INDEX
    corner, eye = torch.zeros(b, 1, 3, dtype=torch.long), torch.eye(4).expand(b, 1, 4, 4)
    return Crops(x, corner, torch.full((b, 3), SIDE), eye, torch.arange(b), label)


def train_steps(teacher: MeanTeacher, batches: list[Crops], steps: int = 40) -> MeanTeacher:
    optimizer = torch.optim.AdamW([w for w in teacher.parameters() if w.requires_grad], lr=1e-2)
    for n in range(steps):
        optimizer.zero_grad()
        teacher.step(batches[n % len(batches)]).loss.backward()
        optimizer.step()
        teacher.after_step()
    return teacher


@pytest.mark.parametrize("method", METHODS)
def test_the_teacher_gets_no_gradient_and_follows_the_student(method):
    teacher = make_teacher(method, confidence=0.0)
    first = [weight.clone() for weight in teacher.teacher.parameters()]
    teacher.step(make_crops(2, 2)).loss.backward()
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.teacher.parameters())
    assert all(weight.grad is not None for weight in teacher.student.parameters())
    with torch.no_grad():
        for weight in teacher.student.parameters():
            weight += 1
    teacher.after_step()
    for old, average, new in zip(first, teacher.teacher.parameters(), teacher.student.parameters(), strict=True):
        assert torch.allclose(average, (old + new) / 2, atol=1e-6)  # the plain mean at first
    teacher.taken += 1000
    before = [weight.clone() for weight in teacher.teacher.parameters()]
    teacher.after_step()
    for old, average, new in zip(before, teacher.teacher.parameters(), teacher.student.parameters(), strict=True):
        assert torch.allclose(average, 0.9 * old + 0.1 * new, atol=1e-6)


def test_the_teacher_is_kept_and_validated():
    teacher = make_teacher("mean-teacher")
    with torch.no_grad():
        for weight in teacher.student.parameters():
            weight.zero_()
    assert all(w.abs().sum() > 0 for w in teacher.transferable()["encoder"].parameters() if w.ndim > 1)
    x = make_crops(1, 0).x[:, 0]
    assert torch.equal(teacher.probability(x), teacher.teacher.probability(x))


def test_the_encoder_weights_are_named_encoder():
    """The learning rate of the encoder depends on this name."""
    teacher = make_teacher("mean-teacher")
    encoder_weights = {id(weight) for name, weight in teacher.named_parameters() if name.startswith("encoder.")}
    assert encoder_weights == {id(weight) for weight in teacher.student.encoder.parameters()}


@pytest.mark.parametrize("method", METHODS)
def test_labelled_crops_alone_are_the_plain_task(method):
    teacher, batch = make_teacher(method), make_crops(2, 0)
    assert torch.equal(teacher.step(batch).loss, teacher.student.step(batch).loss)


@pytest.mark.parametrize("method", METHODS)
def test_the_weight_of_the_unlabelled_loss_ramps_up(method):
    teacher, batch = make_teacher(method, rampup_fraction=0.5, weight=2.0, mixup=0, confidence=0), make_crops(2, 2)
    factors = []
    for num_steps in (0, 10, 20, 40):
        teacher.taken.fill_(num_steps)
        teacher.draws.made.zero_()
        step = teacher.step(batch)
        factors.append(((step.loss - teacher.student.step(make_crops(2, 2)).loss) / step.logs["unlabelled"]).item())
    assert factors[0] < 0.02 < factors[1] < factors[2] == pytest.approx(2.0, rel=1e-3) == factors[3]


def test_only_confident_voxels_become_labels():
    teacher, batch = make_teacher("pseudo-label", confidence=0.9, mixup=0), make_crops(1, 2)
    teacher.teacher.heads[0].conv.weight.data.zero_()
    teacher.teacher.heads[0].conv.bias.data = torch.tensor([0.0, 1.0])
    assert teacher.step(batch).logs["unlabelled"] == 0  # 0.73 is not confident enough
    teacher.teacher.heads[0].conv.bias.data = torch.tensor([0.0, 5.0])
    everything = replace(make_crops(1, 2), label=torch.ones_like(batch.label))
    rows = Crops(**{name: None if v is None else v[1:] for name, v in vars(everything).items()})
    assert torch.allclose(teacher.step(batch).logs["unlabelled"], teacher.student.step(rows).loss.detach())


def test_mixed_crops_have_both_labels_with_the_mixing_ratio():
    teacher, batch = make_teacher("pseudo-label", confidence=0.0, mixup=0.4), make_crops(1, 1)
    inputs: list[Crops] = []
    step = teacher.student.step
    teacher.student.step = lambda crops: inputs.append(crops) or step(crops)
    teacher.step(batch)
    _, partners, mixed = inputs
    ratio = ((partners.x - batch.x[1:]) / (batch.x[:1] - batch.x[1:])).nanmedian()
    assert 0 < ratio < 1 and torch.equal(partners.x, mixed.x)
    assert torch.allclose(partners.x, ratio * batch.x[:1] + (1 - ratio) * batch.x[1:], atol=1e-4)
    assert torch.equal(partners.label, batch.label[:1]) and (mixed.label >= 0).all()


def test_boxes_are_exchanged_both_ways_with_their_labels():
    teacher, batch = make_teacher("copy-paste"), make_crops(1, 1)
    mixed: list[Crops] = []
    compare = teacher.student.compare_with_label
    teacher.student.compare_with_label = lambda logits, crops: mixed.append(crops) or compare(logits, crops)
    loss = teacher.step(batch).logs["unlabelled"]
    labelled, unlabelled = batch.x[0, 0, 0], batch.x[1, 0, 0]
    pseudo_label = keep_largest_components(teacher.teacher.probability(batch.x[1]).argmax(1))[0]
    inward, outward = mixed[1:3], mixed[3:]  # the first are the labelled crops
    boxes = []
    for true_part, pseudo_part in (inward, outward):
        is_true, is_pseudo = true_part.label[0, 0] >= 0, pseudo_part.label[0, 0] >= 0
        assert torch.equal(is_true, ~is_pseudo) and torch.equal(true_part.x, pseudo_part.x)
        assert torch.equal(true_part.x[0, 0, 0], torch.where(is_true, labelled, unlabelled))
        assert torch.equal(true_part.label[0, 0][is_true], batch.label[0, 0][is_true])
        assert torch.equal(pseudo_part.label[0, 0][is_pseudo], pseudo_label[is_pseudo])
        boxes.append(is_pseudo)
    assert torch.equal(boxes[0], ~boxes[1])
    assert boxes[0].sum() == 8**3 and boxes[0].any((1, 2)).sum() == 8  # one box of 2/3 of each side
    losses = [compare(teacher.student.compute_logits(crops), crops).loss for crops in mixed[1:]]
    assert loss == pytest.approx(((losses[0] + losses[2]) + 0.5 * (losses[1] + losses[3])).item() / 2, rel=1e-5)


def test_each_class_keeps_its_largest_component():
    label = torch.zeros(2, 6, 6, 6, dtype=torch.long)
    label[0, :2, :2, :2], label[0, 4:, 4:, 4:5], label[0, 3, 0, 0] = 1, 1, 2
    cleaned = keep_largest_components(label)
    label[0, 4:, 4:, 4:5] = 0
    assert torch.equal(cleaned, label)


def test_boxes_differ_between_crops_and_fit_into_thin_ones():
    boxes = draw_boxes((12, 12, 1), split_generator(torch.Generator().manual_seed(0), 8))
    assert boxes.flatten(1).sum(1).tolist() == [64] * 8
    assert len({tuple(box.flatten().tolist()) for box in boxes}) > 1


def test_random_numbers_repeat_with_the_seed():
    batch = make_crops(1, 1)
    for method in METHODS:
        a, b = (make_teacher(method, confidence=0.5).step(batch).loss for _ in range(2))
        assert torch.equal(a, b)


def perturb(crops: Crops, seed: int) -> Crops:
    generators = split_generator(torch.Generator().manual_seed(seed), len(crops.x))
    return replace(crops, x=perturb_intensity(crops.x[:, 0], generators, 0.6)[:, None])


def concatenate(a: Crops, b: Crops) -> Crops:
    rows = {name: (getattr(a, name), getattr(b, name)) for name in vars(a)}
    return Crops(**{name: None if None in pair else torch.cat(pair) for name, pair in rows.items()})


def measure_dice(teacher: MeanTeacher, test: Crops) -> float:
    predicted = teacher.probability(test.x[:, 0]).argmax(1)
    return (2 * (predicted * test.label[:, 0]).sum() / (predicted.sum() + test.label.sum())).item()


def test_unlabelled_crops_with_other_intensities_improve_on_the_one_label():
    """Test crops and unlabelled crops have other intensities than the labelled crop.

    The head takes activated features: a pre-activation head is so robust that unlabelled crops cannot improve it.
    """
    labelled, test = make_crops(1, 0), perturb(make_crops(16, 0, 99), 5)
    both = [concatenate(labelled, perturb(make_crops(0, 1, seed), seed)) for seed in range(1, 9)]
    supervised = make_teacher("mean-teacher", preactivation_head=False)
    alone = measure_dice(train_steps(supervised, [labelled], 60), test)
    semi_supervised = make_teacher("mean-teacher", preactivation_head=False, weight=4.0)
    assert measure_dice(train_steps(semi_supervised, both, 60), test) > alone + 0.3
