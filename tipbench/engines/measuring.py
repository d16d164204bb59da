"""The meter for an engine: which gauges can read what its processes take, best first."""

from __future__ import annotations

from tipbench.engines.base import Engine
from tipbench.errors import TipbenchError
from tipbench.memory.meter import Gauge, Meter, ReportedGauge


def open_meter(engine: Engine) -> Meter:
    """A meter for the engine: its processes on this machine, a sidecar beside it, itself, or what it reports.

    Raises EngineUnreachable when the engine does not even say where it is.
    """
    own: Gauge | None = getattr(engine, "gauge", None)
    gauges: list[Gauge] = []
    if own is not None:
        gauges.append(own)
    else:
        info = engine.info()
        if info.url:
            from tipbench.memory.processes import ProcessGauge
            from tipbench.memory.sidecar import SidecarGauge

            gauges += [ProcessGauge(info.url, ollama=info.name == "ollama"), SidecarGauge(info.url)]
    return Meter([*gauges, ReportedGauge(lambda: reported(engine))])


def reported(engine: Engine) -> list[int]:
    """Sizes that the engine itself states of the models it holds; none when it does not answer."""
    try:
        return [r.size_bytes for r in engine.resident() if r.size_bytes]
    except TipbenchError:
        return []
