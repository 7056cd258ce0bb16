import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method

EXAMPLES = 6
CHECKED = settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


def test_the_server_does_what_openapi_says(api: FastAPI) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", api)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 12
    for operation in operations:
        nothing_to_vary = not (list(operation.iter_parameters()) or operation.body)
        for mode in [GenerationMode.POSITIVE] if nothing_to_vary else GenerationMode:
            # What is sent as an image is seldom one, so data that fits the schema is not always accepted.
            @CHECKED
            @given(operation.as_strategy(generation_mode=mode))
            def check(case: Case) -> None:
                case.call_and_validate(excluded_checks=[positive_data_acceptance, unsupported_method])

            check()
