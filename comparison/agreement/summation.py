"""By how many roundings a sum may be off, in whatever order it is added up.

A port may add n terms c in any order: one by one, in pairs, in blocks, with compensation. An addition rounds
by at most u times its result, and no order has larger partial sums than one by one, the largest term first: with S =
sum |c| and D the mean of its partial sums, relative to S, no order is off by more than n D u S (D is 1/2 for equal
terms, and 1 where one term outweighs all others). Most are off by far less. Where roundings are as often up as down, n
of them add up like sqrt(n), and r = sqrt(n)/2 roundings of S are charged: for terms of one size, added one by one, the
standard deviation is sqrt(n)/3, since partial sums grow evenly and a rounding is spread evenly over [-u s, u s].

That roundings are of either sign is checked. A running sum s is a multiple of its unit in the last place, so that what
is lost by adding c depends on nothing but c / ulp(s), modulo 1, and is never more than c. If these numbers are spread
over [0, 1) like random ones, so are the roundings. Where they are not, roundings add up:

* Equal terms round alike: a group of m is like m^2 independent ones, so that r = sqrt(sum_c a^2 m)/2, where m is the
  number of terms equal to c and a = min(1, |c| / (u S)) the share of half an ulp that c can lose. Terms are equal if
  they differ by less than u of the largest, or by no more than the reference can tell.
* Terms round alike by and large if they differ by less than an ulp of their sum. N = |sum_c a exp(2 pi i c / ulp)| is n
  if all do and some sqrt(n) if none does; chance has it at more than 4 sqrt(sum_c a^2) about once in 10^7. Where it is,
  D N/4 is added to r: a bias of D N roundings of S, with no factor of 4 for chance. N is the largest of all runs of
  terms from the first on, since a port that adds in order meets one ulp in one run. At S an ulp is 2 u S; sums of
  blocks that come to S/2^l, where it is as much smaller, weigh 2^-l as much.

r need not be more than D n/4, which with the factor of 4 is the bound of all orders; up to 4 terms sqrt(n)/2 is that,
and nothing is checked.
"""

import math

import numpy as np

SAFETY = 4.0
"""The factor on every bound, for what is left to chance."""
RESOLUTION = 2.0**-44
"""Of the largest term, the difference that the reference can tell: its terms are off by some hundreds of roundings."""


def roundings(terms: np.ndarray, u: float) -> np.ndarray:
    """Return r, by how many roundings of its absolute size the sum of each column of `terms` may be off."""
    count, total = len(terms), np.abs(terms).sum(axis=0)
    if count <= SAFETY:  # sqrt(count) / 2 >= count / SAFETY, the bound of all orders
        return np.full(total.shape, math.sqrt(count) / 2)
    nonzero = np.where(total > 0, total, 1)
    halves = terms / nonzero / u  # in halves of an ulp of the sum, which may be less than the smallest number
    lost = np.minimum(np.abs(halves), 1)
    equal = np.sqrt((lost**2 * count_equal(terms, u)).sum(axis=0)) / 2
    mean = _mean_partial_sum(np.abs(terms)) / nonzero
    not_chance = np.minimum(equal + mean * _count_alike(halves) / SAFETY, mean * count / SAFETY)
    return np.maximum(math.sqrt(count) / 2, not_chance)


def _mean_partial_sum(magnitudes: np.ndarray) -> np.ndarray:
    """Return the mean of each column's partial sums, the largest term first."""
    count = len(magnitudes)
    return np.arange(1, count + 1) @ np.sort(magnitudes, axis=0) / count


def count_equal(terms: np.ndarray, u: float) -> np.ndarray:
    """Return m: for each term how many of its column are equal to it, itself among them."""
    largest = np.abs(terms).max(axis=0)
    cells = np.rint(terms / np.where(largest > 0, largest, 1) / max(u, RESOLUTION))
    order = cells.argsort(axis=0)
    ranked = np.take_along_axis(cells, order, axis=0).T
    group = np.cumsum(np.diff(ranked, prepend=np.nan) != 0) - 1  # numbered through all columns
    counts = np.empty(terms.shape)
    np.put_along_axis(counts, order, np.bincount(group)[group].reshape(ranked.shape).T, axis=0)
    return counts


def _count_alike(halves: np.ndarray) -> np.ndarray:
    """Return N of each column, 0 where it may be chance; the terms are in halves of an ulp of their sum."""
    alike = np.zeros(halves.shape[1])
    if len(halves) <= SAFETY**2:  # N <= sum a <= sqrt(n sum a^2), no more than chance
        return alike
    levels = int(math.log2(math.sqrt(len(halves)) / SAFETY)) + 1  # past them, n 2^-l is less than chance
    for weight in 2.0 ** -np.arange(levels):
        part = halves / weight  # in halves of an ulp of a block's sum
        lost = np.minimum(np.abs(part), 1)
        runs = np.abs((lost * np.exp(1j * math.pi * part)).cumsum(axis=0)).max(axis=0)
        by_chance = SAFETY * np.sqrt((lost**2).sum(axis=0))
        alike = np.maximum(alike, np.where(runs > by_chance, weight * runs, 0))
    return alike
