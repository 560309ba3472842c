"""What is counted of streams (Prometheus)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from quartapp.streaming.listener import Listener, Mode

OPEN = Gauge("quartapp_streams_open", "Streams open now", ["transport"])
OPENED = Counter("quartapp_streams_opened", "Streams opened", ["transport"])
CLOSED = Counter("quartapp_streams_closed", "Streams closed", ["transport", "reason"])
REFUSED = Counter("quartapp_streams_refused", "Streams refused", ["reason"])
DURATION = Histogram(
    "quartapp_stream_duration_seconds",
    "How long streams were open",
    buckets=(1, 5, 15, 60, 300, 900, 1800, 3600),
)
EVENTS = Counter("quartapp_stream_events_sent", "Events handed to streams", ["event"])
LAG = Histogram(
    "quartapp_stream_lag_seconds",
    "From the writing of a status event, by the database's clock, to a stream's hands",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
)


class TaskCollector(Collector):
    """How many tasks the loop has, of which every open stream is a few."""

    def collect(self) -> Iterator[Metric]:
        tasks = len(asyncio.all_tasks())
        yield GaugeMetricFamily("quartapp_tasks", "Tasks of the event loop", value=tasks)


class ListenerCollector(Collector):
    """The figures of one listener, as they are when they are asked for."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def collect(self) -> Iterator[Metric]:
        health = self._listener.health()
        for name, meaning, value in (
            ("live", "1 while events come by LISTEN, 0 by polling", health.mode is Mode.PUSH),
            ("channels", "Channels LISTENed to", health.channels),
            ("watches", "Interests in sessions", health.watches),
        ):
            yield GaugeMetricFamily(f"quartapp_listener_{name}", meaning, value=float(value))
        if health.probe_latency_s is not None:
            yield GaugeMetricFamily(
                "quartapp_listener_probe_seconds",
                "How long the last probe took from another connection to this",
                value=health.probe_latency_s,
            )
        for name, meaning, count in (
            ("connects", "Times LISTEN became live", health.connects),
            ("losses", "Times LISTEN was lost or could not be made", health.losses),
            ("safety_finds", "Sessions whose notification never came", health.safety_finds),
            ("malformed", "Notifications that were not ours", health.malformed),
        ):
            yield CounterMetricFamily(f"quartapp_listener_{name}", meaning, value=count)
