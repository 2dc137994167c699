"""Copies of an endpoint's requests for a version that serves nobody yet: SageMaker's shadow variants.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-shadow-deployment.html
"""

from __future__ import annotations

import hashlib
import json

from tasks.core.cloud import CloudConfig
from tasks.core.errors import NotFound, Retryable
from tasks.core.release import Endpoint, EndpointSpec
from tasks.providers._dialects.answers import readable
from tasks.providers.aws.sagemaker import translated
from tasks.providers.aws.server import CHANGING, SERVING, SageMakerServer, goal_of, root_of, unless_there

_SHADOW = "Shadow"


def open_mirror(cloud: CloudConfig) -> MirroringSageMakerServer:
    """The server of an account, able to mirror; see `tasks.providers.aws.server.open_server`."""
    return MirroringSageMakerServer.of(cloud)


class MirroringSageMakerServer(SageMakerServer):
    """`MirroringServer` by a configuration that has a shadow variant beside the variant that serves."""

    def mirror(self, spec: EndpointSpec, percent: int) -> Endpoint:
        """See `MirroringServer.mirror`: a shadow variant beside the variant that serves, which stays as it is.

        Raises:
            NotFound: There is no endpoint that serves.
            Retryable: SageMaker is still at work on the endpoint.
        """
        found = self._find(spec.name)
        if found is None or found["EndpointStatus"] not in SERVING:
            raise NotFound(f"'{self._cloud}': no endpoint '{spec.name}' serves", "promote a version there first")
        with translated(self._place):
            present = self._control.describe_endpoint_config(EndpointConfigName=found["EndpointConfigName"])
        with readable(self._cloud):
            serving = present["ProductionVariants"][0]
            # A variant's model and the configuration without a shadow have one name.
            plain = str(serving["ModelName"])
        shadow = self._config_name(spec)
        facts = json.dumps([plain, shadow, percent])
        both = f"{root_of(spec.name)}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
        config = both if percent else plain
        if goal_of(found) == config:
            if found["EndpointStatus"] not in CHANGING:
                self._want(found, config)
        elif found["EndpointStatus"] in CHANGING:
            raise Retryable(f"'{self._cloud}' is still changing the endpoint '{spec.name}'", "try again")
        else:
            if percent:
                self._prepare(spec, shadow)
                variant = {**self._variant(_SHADOW, shadow), "InitialVariantWeight": percent / 100}
                with unless_there(), translated(self._place):
                    self._control.create_endpoint_config(
                        EndpointConfigName=both, ProductionVariants=[serving], ShadowProductionVariants=[variant]
                    )
            self._update(found, config)
        return self._seen(spec.name)
