"""How the commands talk to the server: over HTTP, signed, as any client does."""

from typing import Any

import botocore.session
from botocore.config import Config as BotoConfig

from cloche import client
from cloche.client import ANSWER_WITHIN_S, answers, default_home, home_option

__all__ = ("AwsClient", "answers", "default_home", "home_option")


class AwsClient(client.Client):
    """A server that is up, with its AWS APIs."""

    def aws(self, service: str) -> Any:
        """Return a botocore client of the server, with root's keys."""
        keys = self.credentials()
        return botocore.session.Session().create_client(
            service,
            region_name=keys.region,
            endpoint_url=self.server.address,
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_access_key,
            config=BotoConfig(proxies={}, read_timeout=ANSWER_WITHIN_S),
        )
