from dataclasses import fields, replace
from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare, kstest

from gradscope.data.sportballs import CLASSES, POSITION, RADIUS, Factors, factors, render

N = 40_000
RANGES = {"radius": RADIUS, "x": POSITION, "y": POSITION, "rotation": (0, 2 * np.pi)}
BINS = {"radius": 6, "x": 5, "y": 5, "rotation": 8}
FACTORS = ("label", *RANGES)


@pytest.fixture(scope="module")
def drawn():
    return factors(0, np.arange(N))


def chosen(drawn: Factors, index) -> Factors:
    return Factors(**{f.name: getattr(drawn, f.name)[index] for f in fields(drawn)})


def binned(drawn: Factors, name: str) -> np.ndarray:
    values = getattr(drawn, name)
    if name == "label":
        return values
    low, high = RANGES[name]
    return np.clip((values - low) / (high - low) * BINS[name], 0, BINS[name] - 1).astype(int)


def independence(a: np.ndarray, b: np.ndarray) -> float:
    """P-value of the chi-square test on the table of two categorical factors."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    assert chi2_contingency(table).expected_freq.min() > 50
    return chi2_contingency(table).pvalue


@pytest.mark.parametrize(("one", "other"), list(combinations(FACTORS, 2)))
def test_factors_are_drawn_independently(drawn, one, other):
    assert independence(binned(drawn, one), binned(drawn, other)) > 1e-3


@pytest.mark.parametrize("other", RANGES)
def test_the_test_of_independence_sees_a_weak_dependence(drawn, other):
    """One image in ten gets the class that its other factor says."""
    dependent = np.arange(N) % 10 == 0
    label = np.where(dependent, binned(drawn, other) % len(CLASSES), drawn.label)
    assert independence(label, binned(drawn, other)) < 1e-6


@pytest.mark.parametrize("name", FACTORS)
def test_an_image_says_nothing_of_the_next_nor_of_another_seed(drawn, name):
    values = binned(drawn, name)
    assert independence(values[:-1], values[1:]) > 1e-3
    assert independence(values, binned(factors(1, np.arange(N)), name)) > 1e-3


@pytest.mark.slow
def test_every_factor_is_uniform(drawn):
    assert chisquare(np.bincount(drawn.label, minlength=len(CLASSES))).pvalue > 1e-3
    for name, (low, high) in RANGES.items():
        values = getattr(drawn, name)
        assert kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-3, name
        assert kstest(values, "uniform", args=(low, 1.1 * (high - low))).pvalue < 1e-6, name


def test_an_image_depends_on_seed_and_index_alone():
    whole = factors(7, np.arange(100, 160))
    order = np.random.default_rng(0).permutation(60)
    shuffled = factors(7, 100 + order)
    for f in fields(whole):
        np.testing.assert_array_equal(getattr(shuffled, f.name), getattr(whole, f.name)[order])
    images = render(whole, 32)
    np.testing.assert_array_equal(render(shuffled, 32), images[order])
    for i in (0, 17, 59):
        np.testing.assert_array_equal(render(factors(7, np.array([100 + i])), 32)[0], images[i])


def test_many_images_are_drawn_as_one_is():
    """More than are drawn at once, and a class that is missing."""
    drawn = factors(3, np.arange(300))
    drawn = chosen(drawn, drawn.label != 2)
    images = render(drawn, 16)
    for i in (0, 63, 64, 150, len(images) - 1):
        np.testing.assert_array_equal(images[i], render(chosen(drawn, [i]), 16)[0])
    assert render(chosen(drawn, []), 16).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("other", [1, 2**32, 2**61 - 1])
def test_seeds_differ(other):
    ours, theirs = factors(0, np.arange(1000)), factors(other, np.arange(1000))
    for name in RANGES:
        assert (getattr(ours, name) != getattr(theirs, name)).mean() > 0.99
        assert np.isin(getattr(ours, name), getattr(theirs, name)).mean() < 0.01
    images = [*render(chosen(ours, np.arange(50)), 32), *render(chosen(theirs, np.arange(50)), 32)]
    assert len({image.tobytes() for image in images}) == 100


def test_the_ball_fits_into_the_canvas(drawn):
    for centre in (drawn.x, drawn.y):
        assert (centre - drawn.radius).min() > 0
        assert (centre + drawn.radius).max() < 1


@pytest.mark.parametrize("size", [32, 64])
def test_the_largest_ball_is_whole_in_every_corner(size):
    """Its area is that of a disk: nothing is cut off."""
    x, y, label = map(np.array, zip(*product(POSITION, POSITION, range(4)), strict=True))
    largest = Factors(label, np.full(16, RADIUS[1]), x, y, np.linspace(0, 6, 16))
    seen = (render(largest, size) < 1).any(axis=1)
    rows, columns = seen.sum(axis=1).max(axis=1), seen.sum(axis=2).max(axis=1)
    diameter = 2 * RADIUS[1] * size
    for extent in (rows, columns, np.sqrt(seen.sum(axis=(1, 2)) * 4 / np.pi)):
        np.testing.assert_allclose(extent, diameter, atol=1.6)


@pytest.mark.parametrize("size", [32, 64])
def test_white_outside_the_ball_and_nowhere_inside(drawn, size):
    few = chosen(drawn, np.arange(64))
    image = render(few, size)
    assert image.shape == (64, 3, size, size)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() == 1
    centre = (np.arange(size) + 0.5) / size
    distance = np.hypot(centre[None, None, :] - few.x[:, None, None], centre[None, :, None] - few.y[:, None, None])
    reach = np.sqrt(0.5) / size  # from a pixel's centre to its corner
    outside = distance > few.radius[:, None, None] + reach
    inside = distance < few.radius[:, None, None] - reach
    white = (image == 1).all(axis=1)
    assert white[outside].all()
    assert not white[inside].any()


def test_64_pixels_averaged_are_the_32_pixel_image(drawn):
    few = chosen(drawn, np.arange(200))
    small, large = render(few, 32), render(few, 64)
    averaged = large.reshape(200, 3, 32, 2, 32, 2).mean(axis=(3, 5))
    difference = np.abs(averaged - small)
    assert difference.mean() < 0.01
    assert difference.mean(axis=(1, 2, 3)).max() < 0.03
    assert np.abs(averaged - np.roll(small, 1, axis=3)).mean() > 3 * difference.mean()


def test_rotation_turns_the_seams_and_not_the_outline(drawn):
    few = chosen(drawn, np.arange(40))
    image, turned = render(few, 64), render(replace(few, rotation=few.rotation + 0.5), 64)
    np.testing.assert_array_equal((image == 1).all(axis=1), (turned == 1).all(axis=1))
    assert (np.abs(image - turned).mean(axis=(1, 2, 3)) > 0.002).all()
    once_around = render(replace(few, rotation=few.rotation + 2 * np.pi), 64)
    assert np.abs(image - once_around).mean() < 1e-3


def test_classes_have_colours_of_their_own(drawn):
    index = np.arange(800)
    image, label = render(chosen(drawn, index), 32), drawn.label[index]
    ball = ~(image == 1).all(axis=1)
    colours = np.stack([image[label == k].transpose(1, 0, 2, 3)[:, ball[label == k]].mean(axis=1) for k in range(4)])
    for i, j in combinations(range(4), 2):
        assert np.abs(colours[i] - colours[j]).max() > 0.05, (CLASSES[i], CLASSES[j])
    red, green, blue = colours[CLASSES.index("basketball")]
    assert red > green > blue
