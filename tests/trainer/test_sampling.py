from __future__ import annotations

from collections import Counter

from trainer.sampling import Cut, Sampler


def sampler(process: int = 0, processes: int = 1) -> Sampler:
    return Sampler(photos_a=12, photos_b=5, batch=2, flip=True, seed=3, process=process, processes=processes)


def photos(cuts: list[Cut]) -> list[int]:
    return [cut.photo for cut in cuts]


def test_an_epoch_shows_every_photo_of_the_larger_domain_once_and_the_smaller_one_evenly() -> None:
    steps = [sampler().cuts(step) for step in range(sampler().steps_per_epoch)]
    a = Counter(photo for cuts, _ in steps for photo in photos(cuts))
    b = Counter(photo for _, cuts in steps for photo in photos(cuts))
    assert a == Counter(range(12))
    assert set(b) == set(range(5))
    assert max(b.values()) - min(b.values()) <= 1


def test_crops_depend_on_the_step_alone_and_differ_between_epochs() -> None:
    assert sampler().cuts(4) == sampler().cuts(4)
    assert sampler().cuts(4) != sampler().cuts(4 + sampler().steps_per_epoch)


def test_processes_divide_the_same_order_of_photos() -> None:
    together = [photos(sampler(process, 2).cuts(1)[0]) for process in (0, 1)]
    alone = Sampler(photos_a=12, photos_b=5, batch=4, flip=True, seed=3)
    assert together[0] + together[1] == photos(alone.cuts(1)[0])


def test_half_of_the_crops_are_mirrored_and_none_without_flip() -> None:
    many = Sampler(photos_a=400, photos_b=400, batch=400, flip=True, seed=1)
    assert 150 < sum(cut.mirror for cut in many.cuts(0)[0]) < 250
    none = Sampler(photos_a=400, photos_b=400, batch=400, flip=False, seed=1)
    assert not any(cut.mirror for cut in none.cuts(0)[0])


def test_crops_reach_all_edges_and_stay_inside() -> None:
    assert Cut(0, 0.0, 0.0, False).corner(40, 60, 32) == (0, 0)
    assert Cut(0, 0.9999, 0.9999, False).corner(40, 60, 32) == (8, 28)
