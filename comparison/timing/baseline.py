"""Whether contenders have become slower since an earlier result of the same machine and settings.

A machine is never as fast twice: compared are not times, but their ratios to one contender of the same run.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from comparison.timing.ranking import KEY, Ranking
from comparison.timing.rounds import Interval, ratios
from reference.defaults import BUILT_IN, CLOSED_FORM

Key = tuple[str, ...]


class Change(NamedTuple):
    """How a contender's ratio to the reference contender has changed."""

    key: Key
    reference: Key
    before: Interval
    now: Interval

    @property
    def ratio(self) -> Interval:
        """How many times as long it takes as before; the interval is the widest that both leave."""
        (before, low, high), now = self.before, self.now
        return Interval(now.median / before, now.low / high, now.high / low)

    @property
    def name(self) -> str:
        """Backend, dtype and strategy."""
        return f"{self.key[0]} {self.key[2]} {self.key[1]}"

    def sentence(self, limit: float) -> str:
        """Describe a contender that is slower for sure."""
        ratio, low, high = self.ratio
        return (
            f"{self.name} takes {ratio:.3g} times as long as in the baseline ({low:.3g} to {high:.3g}), for sure more "
            f"than {limit:g}."
        )

    def as_json(self) -> dict[str, object]:
        """Return the change as JSON records it."""
        return {
            **dict(zip(KEY, self.key, strict=True)),
            "reference": dict(zip(KEY, self.reference, strict=True)),
            "before": self.before,
            "now": self.now,
            "ratio": self.ratio.median,
            "ratio_interval": self.ratio[1:],
        }


def reference_of(keys: Sequence[Key], dtype: str) -> Key:
    """Choose the contender that the others of a dtype are compared with: the simplest backend's closed form, if timed.

    Of that it is least likely that it has become slower itself.
    """
    own = [key for key in keys if key[2] == dtype]
    order = {name: n for n, name in enumerate(BUILT_IN)}
    return min(own, key=lambda key: (key[1] != CLOSED_FORM, order.get(key[0], len(order))))


def ratios_to_reference(ranking: Ranking) -> list[dict[str, object]]:
    """Return each contender's ratio to the reference contender of its dtype, as JSON records it."""
    timings, rounds = ranking.timings, ranking.rounds
    if rounds is None:
        return []
    keys: list[Key] = [timing.contender[:4] for timing in timings]
    rows: list[dict[str, object]] = []
    for n, key in enumerate(keys):
        reference = reference_of(keys, key[2])
        base = keys.index(reference)
        ratio = ratios(rounds.seconds[:, [base, n]], 0, max(1, 2 * (len(keys) - 1)))[1]
        names = dict(zip(KEY, key, strict=True))
        rows.append({**names, "reference": dict(zip(KEY, reference, strict=True)), "ratio": ratio})
    return rows


def changes_since(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Compare the ratios of two results, as `ratios_to_reference` returns them, where both have the contender."""
    earlier = {_key(row): row for row in before}
    changes = []
    for row in now:
        same = earlier.get(_key(row))
        if same is not None and same["reference"] == row["reference"] and _key(row) != _key(row["reference"]):
            changes.append(Change(_key(row), _key(row["reference"]), Interval(*same["ratio"]), Interval(*row["ratio"])))
    return changes


def _key(row: Mapping[str, Any]) -> Key:
    return tuple(row[name] for name in KEY)
