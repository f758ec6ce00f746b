"""`/v2/models/M/stats` as Triton's statistics extension has it and perf_analyzer reads it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from serinus_runtime.metrics import Metrics


class Statistics:
    """What the metrics do not hold: exact batch sizes, and each request's own share of the engine's time.

    Belongs to the event loop's thread. Times are in seconds, of time.monotonic where they are points in time.
    """

    def __init__(self) -> None:
        self.engine_seconds = 0.0
        """Sum over requests of the time that their batch took."""
        self.last = 0.0
        self._batches: dict[int, list[float]] = {}

    def batch(self, rows: int, seconds: float) -> None:
        """One batch of `rows` rows took the engine `seconds`."""
        found = self._batches.get(rows)
        if found is None:
            found = self._batches[rows] = [0, 0.0]
        found[0] += 1
        found[1] += seconds

    def answered(self, started: float, finished: float) -> None:
        """One request's batch ran from `started` to `finished`."""
        self.engine_seconds += finished - started
        self.last = finished

    def describe(self, name: str, version: str, metrics: Metrics) -> dict[str, object]:
        """One entry of `model_stats`. Everything else comes from the metrics, so that nothing is counted twice."""
        sums = _sums(metrics)

        def part(count: float, seconds: float) -> dict[str, int]:
            return {"count": int(count), "ns": round(seconds * 1e9)}

        done = sums.get("requests:200", 0)
        failed = sum(count for key, count in sums.items() if key.startswith("requests:")) - done
        wall = time.time() - (time.monotonic() - self.last) if self.last else 0.0
        # One count for all parts: clients check that they agree, which the stages of requests under way would not.
        stages = {stage: part(done, sums.get(f"sum:{stage}", 0.0)) for stage in ("decode", "queue", "encode")}
        return {
            "name": name,
            "version": version,
            "last_inference": round(wall * 1000),
            "inference_count": int(sum(rows * found[0] for rows, found in self._batches.items())),
            "execution_count": int(sum(found[0] for found in self._batches.values())),
            "inference_stats": {
                "success": part(done, sums.get("duration", 0.0)),
                "fail": part(failed, 0.0),
                "queue": stages["queue"],
                "compute_input": stages["decode"],
                "compute_infer": part(done, self.engine_seconds),
                "compute_output": stages["encode"],
                "cache_hit": part(0, 0.0),
                "cache_miss": part(0, 0.0),
            },
            "response_stats": {},
            "batch_stats": [
                {
                    "batch_size": rows,
                    "compute_input": part(found[0], 0.0),
                    "compute_infer": part(found[0], found[1]),
                    "compute_output": part(found[0], 0.0),
                }
                for rows, found in sorted(self._batches.items())
            ],
            "memory_usage": [],
        }


def _sums(metrics: Metrics) -> Mapping[str, float]:
    sums: dict[str, float] = {}
    for family in metrics.collect():
        for sample in family.samples:
            if sample.name == "serinus_requests_total":
                sums[f"requests:{sample.labels['code']}"] = sample.value
            elif sample.name == "serinus_request_duration_seconds_sum":
                sums["duration"] = sample.value
            elif sample.name == "serinus_stage_duration_seconds_sum":
                sums[f"sum:{sample.labels['stage']}"] = sample.value
    return sums
