import pytest
import torch
import torch.nn.functional as F
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

from glint.vision.losses import image_losses

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) * 3
TARGETS = torch.tensor([0, 1, 2, 3, 0, 1])
PRESENT = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0]])


def test_smoothed_cross_entropy_is_timms():
    found = image_losses(LOGITS, TARGETS, label_smoothing=0.1)
    assert found.shape == (6,)
    torch.testing.assert_close(found.mean(), LabelSmoothingCrossEntropy(0.1)(LOGITS, TARGETS))


def test_shares_of_classes_are_taken_as_indices_are():
    shares = F.one_hot(TARGETS, 4).float()
    torch.testing.assert_close(image_losses(LOGITS, shares), image_losses(LOGITS, TARGETS))
    mixed = 0.3 * shares + 0.7 * shares.flip(0)
    torch.testing.assert_close(image_losses(LOGITS, mixed).mean(), SoftTargetCrossEntropy()(LOGITS, mixed))


def test_a_class_counts_as_its_weight_says():
    weights = torch.tensor([2.0, 1.0, 1.0, 0.5])
    plain, weighed = image_losses(LOGITS, TARGETS), image_losses(LOGITS, TARGETS, class_weights=weights)
    torch.testing.assert_close(weighed, plain * weights[TARGETS])


def test_focal_loss_weighs_down_what_is_right_already():
    plain, focal = image_losses(LOGITS, TARGETS), image_losses(LOGITS, TARGETS, focal_gamma=2.0)
    given = LOGITS.softmax(1)[torch.arange(6), TARGETS]
    torch.testing.assert_close(focal, plain * (1 - given) ** 2)


def test_several_labels_take_the_mean_of_binary_cross_entropies():
    found = image_losses(LOGITS, PRESENT, multi_label=True)
    expected = F.binary_cross_entropy_with_logits(LOGITS, PRESENT.float(), reduction="none").mean(1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_weights_of_several_labels_count_where_the_class_is_present(gamma):
    weights = torch.tensor([3.0, 1.0, 1.0, 1.0])
    plain = image_losses(LOGITS, PRESENT, multi_label=True, focal_gamma=gamma)
    weighed = image_losses(LOGITS, PRESENT, multi_label=True, focal_gamma=gamma, class_weights=weights)
    first = PRESENT[:, 0] == 1
    assert (weighed[first] > plain[first]).all()
    torch.testing.assert_close(weighed[~first], plain[~first])


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_every_loss_can_be_learnt_from(multi_label, gamma):
    logits = LOGITS.clone().requires_grad_()
    targets = PRESENT if multi_label else TARGETS
    image_losses(logits, targets, multi_label=multi_label, label_smoothing=0.1, focal_gamma=gamma).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad != 0).any(1).all()


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_a_rare_class_that_weighs_much_leaves_the_frequent_one_right(gamma):
    targets = F.one_hot(torch.tensor([0] * 99 + [1]), 2).float()
    weights = torch.tensor([100 / 198, 50.0])
    free = torch.zeros(2, 2, requires_grad=True)  # what is best to say of an image of either class
    best = torch.optim.LBFGS([free], max_iter=100)

    def closure():
        best.zero_grad()
        weighed = image_losses(targets @ free, targets, label_smoothing=0.1, focal_gamma=gamma, class_weights=weights)
        weighed.sum().backward()
        return weighed.sum()

    best.step(closure)
    assert free.argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_a_rare_label_that_weighs_much_is_absent_where_it_is_not(gamma):
    present = torch.tensor([[0.0]] * 99 + [[1.0]])
    free = torch.zeros(2, 1, requires_grad=True)
    best = torch.optim.LBFGS([free], max_iter=100)

    def closure():
        best.zero_grad()
        logits = torch.cat([free[:1].expand(99, 1), free[1:]])
        options = {"multi_label": True, "label_smoothing": 0.1, "class_weights": torch.tensor([99.0])}
        weighed = image_losses(logits, present, focal_gamma=gamma, **options).sum()
        weighed.backward()
        return weighed

    best.step(closure)
    assert (free > 0).flatten().tolist() == [False, True]


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("multi_label", [False, True])
def test_what_is_surely_right_has_a_focal_loss_without_a_gradient(gamma: float, multi_label: bool) -> None:
    logits = torch.tensor([[25.0, -25.0], [200.0, -200.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    image_losses(logits, targets, multi_label=multi_label, focal_gamma=gamma).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(2, 2))
