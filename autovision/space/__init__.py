"""The search-space language: typed, validated parameters, declared in a class, carried as JSON.

Space, Float, Integer, Choice, Constant   how a space is written            (space, parameters, declare)
TrialConfig                               what a point of a space becomes   (config)
load_space                                a space by name, module or file   (load)
"""

from autovision.space.config import TrialConfig
from autovision.space.load import load_space
from autovision.space.parameters import Choice, Constant, Float, Integer, Parameter
from autovision.space.space import Point, Space

__all__ = [
    "Choice",
    "Constant",
    "Float",
    "Integer",
    "Parameter",
    "Point",
    "Space",
    "TrialConfig",
    "load_space",
]
