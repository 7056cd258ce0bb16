import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method


@pytest.fixture(scope="module")
def schema(api: FastAPI) -> object:
    return schemathesis.openapi.from_asgi("/openapi.json", api)


# What is sent as an image is seldom one, so data that fits the schema is not always accepted.
@schemathesis.pytest.from_fixture("schema").parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_server_does_what_openapi_says(case: Case) -> None:
    case.call_and_validate(excluded_checks=[positive_data_acceptance, unsupported_method])
