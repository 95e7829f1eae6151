"""Counters and histograms under TensorFlow Serving's names, as Prometheus text.

A name is TensorFlow's metric path with every character outside [a-zA-Z0-9_] replaced by `:`. Latencies are in
microseconds. Sources: tensorflow_serving/servables/tensorflow/util.cc, tensorflow_serving/util/prometheus_exporter.cc.
"""

import bisect
import re
import threading
from collections.abc import Sequence

CONTENT_TYPE = "text/plain"
DEFAULT_PATH = "/monitoring/prometheus/metrics"
LATENCY_BOUNDS = tuple(10 * 1.8**power for power in range(33))  # monitoring::Buckets::Exponential(10, 1.8, 33)
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_]")


class Counter:
    """A number that only grows, for each combination of labels."""

    kind = "counter"

    def __init__(self, path: str, labels: Sequence[str]) -> None:
        self.path = path
        self.name = _NOT_ALLOWED.sub(":", path)
        self._labels = labels
        self._values: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, amount: float = 1) -> None:
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + amount

    def total(self) -> float:
        with self._lock:
            return sum(self._values.values())

    def lines(self) -> list[str]:
        with self._lock:
            values = dict(self._values)
        return [f"{self.name}{_braces(self._labels, key)} {_number(value)}" for key, value in sorted(values.items())]


class Histogram:
    """Counts of values under each bound, for each combination of labels."""

    kind = "histogram"

    def __init__(self, path: str, labels: Sequence[str], bounds: Sequence[float] = LATENCY_BOUNDS) -> None:
        self.path = path
        self.name = _NOT_ALLOWED.sub(":", path)
        self._labels = labels
        self._bounds = bounds
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def observe(self, value: float, *labels: str) -> None:
        at = bisect.bisect_left(self._bounds, value)
        with self._lock:
            counts = self._counts.get(labels)
            if counts is None:
                counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            counts[at] += 1
            self._sums[labels] = self._sums.get(labels, 0.0) + value

    def total(self) -> float:
        with self._lock:
            return sum(map(sum, self._counts.values()))

    def lines(self) -> list[str]:
        with self._lock:
            series = {key: (list(counts), self._sums[key]) for key, counts in self._counts.items()}
        lines = []
        for key, (counts, total) in sorted(series.items()):
            below = 0
            for bound, count in zip([*map(_number, self._bounds), "+Inf"], counts, strict=True):
                below += count
                lines.append(f"{self.name}_bucket{_braces([*self._labels, 'le'], [*key, bound])} {below}")
            lines.append(f"{self.name}_sum{_braces(self._labels, key)} {_number(total)}")
            lines.append(f"{self.name}_count{_braces(self._labels, key)} {below}")
        return lines


class Metrics:
    """All counters and histograms of the model server."""

    def __init__(self) -> None:
        serving, saved_model = "/tensorflow/serving/", "/tensorflow/cc/saved_model/"
        batch = serving + "batching_session/"
        sizes = tuple(2.0**power for power in range(15))
        self.requests = Counter(serving + "request_count", ["model_name", "status"])
        self.request_latency = Histogram(serving + "request_latency", ["model_name", "API", "entrypoint"])
        self.runtime_latency = Histogram(serving + "runtime_latency", ["model_name", "API", "runtime"])
        self.warmup_latency = Histogram(serving + "model_warmup_latency", ["model_path", "status"])
        self.warmup_records = Counter(serving + "model_warmup_records_read", ["model_path"])
        self.load_attempts = Counter(saved_model + "load_attempt_count", ["model_path", "status"])
        self.load_latency = Counter(saved_model + "load_latency", ["model_path"])
        self.load_stages = Histogram(saved_model + "load_latency_by_stage", ["model_path", "stage"])
        self.queuing_latency = Histogram(batch + "queuing_latency", [])
        self.input_batch_size = Histogram(batch + "input_batch_size", [], sizes)
        self.processed_batch_size = Histogram(batch + "processed_batch_size", [], sizes)
        self.padding_size = Histogram(batch + "padding_size", ["execution_batch_size"], sizes)
        self.wrapped_runs = Counter(batch + "wrapped_run_count", [])

    def prometheus(self) -> str:
        """All metrics that have a value, as the Prometheus text format, with TYPE lines and without HELP."""
        parts = []
        for metric in self._all():
            lines = metric.lines()
            if lines:
                parts += [f"# TYPE {metric.name} {metric.kind}", *lines]
        return "\n".join(parts) + "\n"

    def totals(self, paths: Sequence[str]) -> dict[str, int]:
        """The present totals of these metrics, by TensorFlow's path; those that do not exist are left out."""
        known = {metric.path: metric for metric in self._all()}
        return {path: int(known[path].total()) for path in paths if path in known}

    def _all(self) -> list[Counter | Histogram]:
        return [metric for metric in vars(self).values() if isinstance(metric, Counter | Histogram)]


def _braces(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True)) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.10g}"
