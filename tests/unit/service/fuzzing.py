"""Asking the service whatever its documentation allows, and what it does not; with schemathesis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CheckFunction
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as about

CHECKS: list[CheckFunction] = [
    schemathesis.checks.not_a_server_error,
    about.status_code_conformance,
    about.content_type_conformance,
    about.response_headers_conformance,
    about.response_schema_conformance,
]


@dataclass
class Fuzz:
    """Sends requests to a running service.

    Args:
        known: parameter of a path -> a name that is there; half of the requests ask for these.
        examples: requests of each kind to each route; kinds are what the documentation allows, and what it does not.
    """

    url: str
    known: Mapping[str, str]
    examples: int
    headers: Mapping[str, str] = field(default_factory=dict)
    first_seed: int = 0
    told: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(route, status) -> how often"""

    def __call__(self) -> Counter[tuple[str, int]]:
        document = httpx.get(f"{self.url}/api/v1/openapi.json", trust_env=False, timeout=120).json()
        schema = schemathesis.openapi.from_dict(document)
        with requests.Session() as session:
            session.trust_env = False
            for found in schema.get_all_operations():
                operation: Any = found.ok()
                named = {name: self.known[name] for name in self.known if f"{{{name}}}" in operation.path}
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    for path in [None, named] if named else [None]:
                        self._fuzz(operation, mode, path, session)
        return self.told

    def _fuzz(
        self, operation: Any, mode: GenerationMode, path: dict[str, str] | None, session: requests.Session
    ) -> None:
        fixed = {} if path is None else {"path_parameters": path}

        @seed(self.first_seed)
        @settings(
            max_examples=self.examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode, **fixed))
        def ask(case: Any) -> None:
            response = case.call(base_url=self.url, session=session, headers=dict(self.headers), timeout=60)
            self.told[operation.label, response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        # Of a route that takes nothing, nothing can be said that is not allowed.
        with suppress(Unsatisfiable):
            ask()
