"""The search spaces that are shipped. `README.md` beside this file says which one to pick."""

from search_spaces.architecture import Architecture
from search_spaces.demo import Demo
from search_spaces.edge import Edge
from search_spaces.inspection import Inspection
from search_spaces.quick import Quick
from search_spaces.standard import Standard

__all__ = ["Architecture", "Demo", "Edge", "Inspection", "Quick", "Standard"]
