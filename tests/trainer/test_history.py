from __future__ import annotations

import torch

from trainer.history import History


def images(*values: int) -> torch.Tensor:
    return torch.stack([torch.full((3, 2, 2), float(value)) for value in values])


def values(batch: torch.Tensor) -> list[int]:
    return [int(image[0, 0, 0]) for image in batch]


def test_images_pass_until_the_pool_is_full() -> None:
    history = History(4, torch.Generator().manual_seed(0))
    assert values(history.exchange(images(1, 2))) == [1, 2]
    assert values(history.exchange(images(3, 4))) == [3, 4]


def test_a_full_pool_returns_about_half_past_images_each_of_them_once() -> None:
    history = History(10, torch.Generator().manual_seed(0))
    history.exchange(images(*range(10)))
    given = [values(history.exchange(images(number)))[0] for number in range(10, 210)]
    past = [out for number, out in zip(range(10, 210), given, strict=True) if out != number]
    assert 70 < len(past) < 130
    assert len(set(past)) == len(past)


def test_a_pool_of_size_0_returns_its_input() -> None:
    history = History(0, torch.Generator())
    assert values(history.exchange(images(1, 2, 3))) == [1, 2, 3]


def test_a_restored_pool_continues_identically() -> None:
    first = History(5, torch.Generator().manual_seed(7))
    first.exchange(images(*range(8)))
    second = History(5, torch.Generator().manual_seed(99))
    second.load_state_dict(first.state_dict(), torch.device("cpu"))
    for number in range(8, 40):
        assert values(first.exchange(images(number))) == values(second.exchange(images(number)))


def test_the_pool_keeps_no_gradients() -> None:
    history = History(2, torch.Generator())
    made = images(1).requires_grad_()
    assert not history.exchange(made).requires_grad
