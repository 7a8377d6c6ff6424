"""Yards as the tests here want them: their native answers are compared with the OpenAPI document, and they share built environments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx

from contract import Contract
from modelyard.testing.process import Check, YardProcess

_contracts: list[Contract] = []
environments: list[Path] = []
"""The folder that this test run builds environments in."""


def contract_of(url: str) -> Contract:
    """What the program under test declares, asked for once: every yard of a test run is of the same code."""
    if not _contracts:
        _contracts.append(Contract(httpx.get(f"{url}/openapi.json", timeout=60, trust_env=False, verify=False).raise_for_status().json()))
    return _contracts[0]


def keeps_contract(url: str, response: httpx.Response) -> None:
    contract_of(url).check(response)


@dataclass
class YardUnderTest(YardProcess):
    check: Check | None = keeps_contract

    def __post_init__(self) -> None:
        if self.environments is None and environments:
            self.environments = environments[0]
