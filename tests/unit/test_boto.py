"""Sessions of Amazon's SDK: descriptions of services are the SDK's own, held in less memory."""

from __future__ import annotations

import pytest
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader

from tasks.providers._dialects.boto import _Descriptions, core_session


@pytest.mark.parametrize(
    "file", ["s3/2006-03-01/service-2", "s3/2006-03-01/endpoint-rule-set-1", "sqs/2012-11-05/service-2", "endpoints"]
)
def test_descriptions_are_those_of_the_sdk_as_plain_dictionaries(file: str) -> None:
    # Not those of this process's sessions: the SDK changes what it has loaded.
    found = Loader(file_loader=_Descriptions()).load_data(file)
    assert found == Loader().load_data(file)
    assert type(found) is dict


def test_a_service_that_the_sdk_does_not_know_is_told_so() -> None:
    with pytest.raises(UnknownServiceError, match="no-such-service"):
        core_session().get_component("data_loader").load_service_model("no-such-service", "service-2")
