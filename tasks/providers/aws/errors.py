"""What SQS answers, translated. S3's errors are those of the dialect: `tasks.providers._dialects.s3_errors`.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from botocore.exceptions import BotoCoreError, ClientError

from tasks.providers._dialects.objects import Place
from tasks.providers._dialects.s3_errors import S3_CODES, Sentence, translate

SQS_CODES: Mapping[str, Sentence] = MappingProxyType(
    {
        **S3_CODES,
        **dict.fromkeys(
            ("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"), lambda place, _key: place.no_bucket()
        ),
        **dict.fromkeys(
            (
                "AccessDeniedException",
                "InvalidClientTokenId",
                "MissingAuthenticationToken",
                "UnrecognizedClientException",
            ),
            lambda place, _key: place.denied(),
        ),
        "ReceiptHandleIsInvalid": lambda place, _key: place.rejected("ReceiptHandleIsInvalid"),
    }
)


@contextmanager
def translated(queue: Place) -> Iterator[None]:
    """Raises what the block's botocore error means for the queue."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise translate(error, queue, None, SQS_CODES) from error
