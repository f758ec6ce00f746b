"""Generated card transactions: the same seed gives the same rows on every machine.

Twelve numeric columns and one skewed category, with fraud that hides in the interactions between them (a young
account spending much, far away, at night), so that a better model really is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
ObjectArray = npt.NDArray[np.object_]

NUMERIC_COLUMNS: tuple[str, ...] = (
    "amount",
    "account_age_days",
    "hour",
    "distance_km",
    "tx_count_1h",
    "tx_count_24h",
    "amount_sum_24h",
    "merchants_24h",
    "avg_amount_30d",
    "minutes_since_last",
    "failed_logins_24h",
    "card_present",
)
"""Order of the columns in the served input `features`."""

LOG_COLUMNS: tuple[str, ...] = (
    "amount",
    "account_age_days",
    "distance_km",
    "amount_sum_24h",
    "avg_amount_30d",
    "minutes_since_last",
)
"""Columns with a long tail: the preprocessing takes log1p of them."""

CATEGORIES: dict[str, float] = {
    "grocery": 0.31,
    "restaurant": 0.20,
    "fuel": 0.14,
    "retail": 0.12,
    "online": 0.09,
    "travel": 0.07,
    "electronics": 0.04,
    "gambling": 0.02,
    "jewellery": 0.01,
}
"""Merchant categories and how common they are. `travel` is the one that the broken v3 is slow on."""

_RISK = {"online": 0.6, "travel": 0.4, "electronics": 0.8, "gambling": 1.3, "jewellery": 1.1}


@dataclass(frozen=True)
class Transactions:
    """Rows to learn from or to score.

    `features` is float32 [n, 12] in the order of NUMERIC_COLUMNS, `merchant_category` strings [n, 1], `label` 0/1 [n].
    """

    features: FloatArray
    merchant_category: ObjectArray
    label: IntArray

    def table(self) -> ObjectArray:
        """One object array [n, 13], as the scikit-learn pipeline takes it: the numbers first, the category last."""
        return np.hstack([self.features.astype(object), self.merchant_category])

    def __len__(self) -> int:
        return len(self.label)


def generate(count: int, seed: int) -> Transactions:
    """Draws `count` transactions; about 2 % are fraud."""
    rng = np.random.default_rng(seed)
    names = np.array(list(CATEGORIES), dtype=object)
    category = rng.choice(names, size=count, p=np.array(list(CATEGORIES.values())))
    columns = _columns(rng, count, category)
    features = np.column_stack([columns[name] for name in NUMERIC_COLUMNS]).astype(np.float32)
    risk = _risk(columns, category)
    label = (rng.random(count) < 1.0 / (1.0 + np.exp(-(2.2 * risk - 9.2)))).astype(np.int64)
    return Transactions(features, category.reshape(-1, 1), label)


def _columns(rng: np.random.Generator, count: int, category: ObjectArray) -> dict[str, npt.NDArray[np.float64]]:
    usual = np.exp(rng.normal(3.4, 0.7, count))
    lift = np.where(np.isin(category, ["travel", "electronics", "jewellery"]), 1.1, 0.0)
    amount = usual * np.exp(rng.normal(0.0, 0.8, count) + lift)
    hourly = rng.poisson(0.4, count) + rng.binomial(1, 0.03, count) * rng.poisson(5, count)
    daily = hourly + rng.poisson(2.5, count)
    return {
        "amount": np.round(amount, 2),
        "account_age_days": np.floor(rng.gamma(1.4, 520, count)),
        "hour": np.floor(rng.normal(14.5, 5.0, count)) % 24,
        "distance_km": np.round(np.exp(rng.normal(1.6, 1.5, count)) + (category == "travel") * 300.0, 1),
        "tx_count_1h": hourly.astype(np.float64),
        "tx_count_24h": daily.astype(np.float64),
        "amount_sum_24h": np.round(amount + usual * daily * rng.uniform(0.4, 1.3, count), 2),
        "merchants_24h": np.minimum(daily, rng.poisson(2, count)).astype(np.float64),
        "avg_amount_30d": np.round(usual, 2),
        "minutes_since_last": np.floor(rng.exponential(420, count)),
        "failed_logins_24h": rng.poisson(0.15, count).astype(np.float64),
        "card_present": (rng.random(count) < np.where(category == "online", 0.0, 0.8)).astype(np.float64),
    }


def _risk(c: dict[str, Any], category: ObjectArray) -> npt.NDArray[np.float64]:
    base = np.array([_RISK.get(str(name), 0.0) for name in category])
    spree = np.log1p(c["amount"] / c["avg_amount_30d"])
    night = (c["hour"] < 6).astype(np.float64)
    young = np.exp(-c["account_age_days"] / 200.0)
    far = np.log1p(c["distance_km"]) / 6.0
    absent = 1.0 - c["card_present"]
    risk: npt.NDArray[np.float64] = (
        base
        + 0.9 * spree
        + 1.4 * young * spree
        + 1.3 * night * far
        + 1.6 * absent * far
        + 0.5 * np.minimum(c["tx_count_1h"], 8) * young
        + 0.35 * np.minimum(c["tx_count_1h"], 8)
        + 1.1 * np.minimum(c["failed_logins_24h"], 3) * absent
        + 0.4 * (c["merchants_24h"] > 3)
        - 0.15 * np.log1p(c["minutes_since_last"])
    )
    return risk
