"""mnv3search: platform-aware architecture search and NetAdapt for mobile networks.

The public names stand in this one namespace; each is imported when it is first used, so importing the package is
quick::

    import mnv3search

    outcome = mnv3search.run("mnv3_large", "50ms")  # block search and NetAdapt, in a folder, as on the command line
    outcome.to_frame()  # the winner, the finalists and published networks
    mnv3search.resume("runs/DIR")  # goes on with a run or a pruning
    mnv3search.prune("runs/flowers", "flowers/", "0.6x")  # NetAdapt on a trained network

    space = mnv3search.load_space("mnv3_large")
    result = mnv3search.search(
        space, mnv3search.load_device("pixel1"), mnv3search.ImagenetPrior(), target_latency_ms=50.0, trials=5000, seed=0
    )
    print(result.best)
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as type checkers read it, without the import of typing
if TYPE_CHECKING:
    from mnv3search.accuracy.evaluator import Capabilities as Capabilities
    from mnv3search.accuracy.evaluator import Evaluation as Evaluation
    from mnv3search.accuracy.evaluator import Evaluator as Evaluator
    from mnv3search.accuracy.prior import ImagenetPrior as ImagenetPrior
    from mnv3search.accuracy.registry import EvaluatorContext as EvaluatorContext
    from mnv3search.accuracy.registry import load_evaluator as load_evaluator
    from mnv3search.architecture import (
        Architecture as Architecture,
    )
    from mnv3search.architecture import (
        HeadSpec as HeadSpec,
    )
    from mnv3search.architecture import (
        StemSpec as StemSpec,
    )
    from mnv3search.architecture import (
        dump_architecture as dump_architecture,
    )
    from mnv3search.architecture import (
        load_architecture as load_architecture,
    )
    from mnv3search.block_search import SearchResult as SearchResult
    from mnv3search.block_search import search as search
    from mnv3search.blocks import BlockSpec as BlockSpec
    from mnv3search.blocks import SqueezeExciteSpec as SqueezeExciteSpec
    from mnv3search.candidate import Candidate as Candidate
    from mnv3search.candidate import pareto_front as pareto_front
    from mnv3search.cost import Counts as Counts
    from mnv3search.cost import count as count
    from mnv3search.errors import InfeasibleError as InfeasibleError
    from mnv3search.errors import Mnv3SearchError as Mnv3SearchError
    from mnv3search.export import export_network as export_network
    from mnv3search.families import published as published
    from mnv3search.latency.devices import load_device as load_device
    from mnv3search.latency.estimated import RooflineDevice as RooflineDevice
    from mnv3search.latency.fitted.device import fit_device as fit_device
    from mnv3search.latency.model import LatencyModel as LatencyModel
    from mnv3search.layer_search import NetAdaptOptions as NetAdaptOptions
    from mnv3search.layer_search import NetAdaptResult as NetAdaptResult
    from mnv3search.layer_search import netadapt as netadapt
    from mnv3search.naming import parse_network as parse_network
    from mnv3search.network.build import build_network as build_network
    from mnv3search.report.pareto import plot_pareto as plot_pareto
    from mnv3search.runs.session import prune as prune
    from mnv3search.runs.session import resume as resume
    from mnv3search.runs.session import run as run
    from mnv3search.space import SearchSpace as SearchSpace
    from mnv3search.space import load_space as load_space
    from mnv3search.training.data.open_data import open_data as open_data
    from mnv3search.training.loop import train_network as train_network
    from mnv3search.training.recipe import load_recipe as load_recipe
    from mnv3search.training.trained import TrainedNetwork as TrainedNetwork
    from mnv3search.training.trained import load_trained as load_trained

_HOMES = {
    "Architecture": "architecture",
    "BlockSpec": "blocks",
    "Candidate": "candidate",
    "Capabilities": "accuracy.evaluator",
    "Counts": "cost",
    "Evaluation": "accuracy.evaluator",
    "Evaluator": "accuracy.evaluator",
    "EvaluatorContext": "accuracy.registry",
    "HeadSpec": "architecture",
    "ImagenetPrior": "accuracy.prior",
    "InfeasibleError": "errors",
    "LatencyModel": "latency.model",
    "Mnv3SearchError": "errors",
    "NetAdaptOptions": "layer_search",
    "NetAdaptResult": "layer_search",
    "RooflineDevice": "latency.estimated",
    "SearchResult": "block_search",
    "SearchSpace": "space",
    "SqueezeExciteSpec": "blocks",
    "StemSpec": "architecture",
    "TrainedNetwork": "training.trained",
    "build_network": "network.build",
    "count": "cost",
    "dump_architecture": "architecture",
    "export_network": "export",
    "fit_device": "latency.fitted.device",
    "load_architecture": "architecture",
    "load_device": "latency.devices",
    "load_evaluator": "accuracy.registry",
    "load_recipe": "training.recipe",
    "load_space": "space",
    "load_trained": "training.trained",
    "netadapt": "layer_search",
    "open_data": "training.data.open_data",
    "pareto_front": "candidate",
    "parse_network": "naming",
    "plot_pareto": "report.pareto",
    "prune": "runs.session",
    "published": "families",
    "resume": "runs.session",
    "run": "runs.session",
    "search": "block_search",
    "train_network": "training.loop",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("mnv3search")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mnv3search' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"mnv3search.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
