"""Names of attributes: those of OpenTelemetry's conventions for messaging (1.44), and our own."""

SYSTEM = "messaging.system"
OPERATION = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
MESSAGE_ID = "messaging.message.id"
BATCH = "messaging.batch.message_count"
ERROR_TYPE = "error.type"

JOB_NAME = "arqonce.job.name"
"""The name of the job on the wire; not on spans of several kinds of jobs."""

ATTEMPT = "arqonce.job.attempt"
"""The number of the attempt, from 1."""

OUTCOME = "arqonce.job.outcome"
"""How the attempt has ended: ``succeeded``, ``refused``, ``retried``, ``dead`` or ``interrupted``."""
