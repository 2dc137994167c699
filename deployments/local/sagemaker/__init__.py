"""A strict local double of Amazon SageMaker, its runtime, and the part of CloudWatch Logs that SageMaker writes to.

Training jobs are real processes and endpoints real scoring processes; requests are checked against the service models
that botocore ships, signatures are verified, answers hold nothing that the official shapes do not have.
"""
