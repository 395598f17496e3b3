"""AWS signatures, version 4, for MLflow behind an API Gateway (service `execute-api`), by botocore; the extra `aws`.

API Gateway wants the digest of the body in the signature and refuses UNSIGNED-PAYLOAD, so a streamed body is read once
for its digest and once more to be sent. It takes 10 MB per request at most, whoever signs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

from amigrate.client.auth import Outgoing
from amigrate.core.errors import AuthError, UsageError

SERVICE = "execute-api"
SIGNED = ("content-type", "x-mlflow-workspace")
"""Headers that are signed besides host and date; proxies may change the others on their way."""


class Signer:
    """See `auth.Credentials`."""

    hint = "check the AWS credentials, their region, and what they may invoke"

    def __init__(self) -> None:
        try:
            from botocore.session import Session
        except ImportError as error:
            raise UsageError("AWS signatures need a package of their own: pip install 'amigrate[aws]'") from error
        self._session: Any = Session()
        self._region = self._session.get_config_variable("region")
        if not self._region:
            raise UsageError("AWS signatures need a region: set AWS_DEFAULT_REGION or the region of the profile")
        self._credentials: Any = None
        self._lock = threading.Lock()

    async def headers(self, request: Outgoing) -> dict[str, str]:
        digest = await request.digest()
        # Keys may come from a file, a program or a server, and are renewed on the way: not for the event loop.
        return await asyncio.to_thread(self._sign, request, digest)

    async def renewed(self, refused: Mapping[str, str]) -> bool:
        return False

    def secrets(self) -> tuple[str, ...]:
        if self._credentials is None:
            return ()
        return tuple(one for one in (self._credentials.secret_key, self._credentials.token) if one)

    def _sign(self, request: Outgoing, digest: str) -> dict[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError

        class Signature(SigV4Auth):  # type: ignore[misc]
            """The digest is known already: the body itself is never held."""

            def payload(self, request: Any) -> str:
                return digest

        try:
            keys = self._frozen()
        except BotoCoreError as error:
            raise AuthError(f"the AWS credentials cannot be had ({type(error).__name__}): {self.hint}") from None
        signed = {name: value for name, value in request.headers.items() if name.lower() in SIGNED}
        outgoing = AWSRequest(request.method, str(request.url), headers=signed)
        Signature(keys, SERVICE, self._region).add_auth(outgoing)
        return {name: value for name, value in outgoing.headers.items() if name not in signed}

    def _frozen(self) -> Any:
        """Key, secret and session token of this moment."""
        with self._lock:
            found = self._session.get_credentials()
            if found is None:
                raise AuthError(f"no AWS credentials are found: {self.hint}")
            self._credentials = found.get_frozen_credentials()
            return self._credentials
