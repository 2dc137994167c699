"""STS and IAM, as far as somebody asks who they are and what they may: the protocol `query` with answers in XML.

The account's only key belongs to one user, who may do everything but what the fault `deny` takes away.
https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

import uuid
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response

from deployments.local.faults import FaultTable
from deployments.local.sagemaker.wire import Account, Refused, verify

FORM = "application/x-www-form-urlencoded"
_NAMESPACES = {"sts": "https://sts.amazonaws.com/doc/2011-06-15/", "iam": "https://iam.amazonaws.com/doc/2010-05-08/"}
_SERVICE_OF = {"GetCallerIdentity": "sts", "SimulatePrincipalPolicy": "iam"}
# The two protocols have different words for the same refusals.
_CODES = {
    "AccessDeniedException": "AccessDenied",
    "IncompleteSignatureException": "IncompleteSignature",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
    "UnrecognizedClientException": "InvalidClientTokenId",
}


class Identity:
    """Who the caller is.

    Args:
        account: Whose requests are taken.
        faults: Where `deny` may stand, with the permission (`sagemaker:CreateModel`) as its operation.
    """

    def __init__(self, account: Account, faults: FaultTable) -> None:
        self._account, self._faults = account, faults
        self._arn = f"arn:aws:iam::{account.number}:user/lintas"

    async def answer(self, request: Request) -> Response:
        """Answer a request of the protocol `query`."""
        body = await request.body()
        asked = {name: values[-1] for name, values in parse_qs(body.decode(errors="replace")).items()}
        action = asked.get("Action", "")
        try:
            if action not in _SERVICE_OF:
                raise Refused("InvalidAction", f"The local double does not imitate the action {action}.")
            service = _SERVICE_OF[action]
            verify(request, body, self._account, service)
            result = self._who() if action == "GetCallerIdentity" else self._simulated(asked)
        except Refused as refused:
            return _xml(_refusal(refused), refused.status)
        answer = f"<{action}Result>{result}</{action}Result>{_metadata()}"
        return _xml(f'<{action}Response xmlns="{_NAMESPACES[service]}">{answer}</{action}Response>', 200)

    def _who(self) -> str:
        return f"<Arn>{self._arn}</Arn><UserId>AIDALINTASTWIN</UserId><Account>{self._account.number}</Account>"

    def _simulated(self, asked: dict[str, str]) -> str:
        if self._faults.take("deny", operation="iam:SimulatePrincipalPolicy"):
            words = f"User: {self._arn} is not authorized to perform: iam:SimulatePrincipalPolicy"
            raise Refused("AccessDenied", words, 403)
        if asked.get("PolicySourceArn") != self._arn:
            raise Refused("NoSuchEntity", "The entity of this ARN cannot be found.", 404)
        actions = _members(asked, "ActionNames")
        resources = _members(asked, "ResourceArns") or ["*"]
        if not actions:
            raise Refused("InvalidInput", "ActionNames is required.")
        results = "".join(self._decision(action, resource) for action in actions for resource in resources)
        return f"<IsTruncated>false</IsTruncated><EvaluationResults>{results}</EvaluationResults>"

    def _decision(self, action: str, resource: str) -> str:
        denied = self._faults.take("deny", operation=action, target=resource)
        decision = "implicitDeny" if denied else "allowed"
        return (
            f"<member><EvalActionName>{escape(action)}</EvalActionName><EvalResourceName>{escape(resource)}"
            f"</EvalResourceName><EvalDecision>{decision}</EvalDecision></member>"
        )


def _members(asked: dict[str, str], name: str) -> list[str]:
    found: list[str] = []
    while (value := asked.get(f"{name}.member.{len(found) + 1}")) is not None:
        found.append(value)
    return found


def _refusal(refused: Refused) -> str:
    code = _CODES.get(refused.code, refused.code)
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{escape(refused.message)}</Message></Error>"
    return f"<ErrorResponse>{error}<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"


def _metadata() -> str:
    return f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata>"


def _xml(body: str, status: int) -> Response:
    return Response(body, status, media_type="text/xml")
