"""Explains why TLS with a server fails, and names the cure. Knows neither Redis nor PostgreSQL."""

import ssl

from arqonce.causes import causes

_NOT_TRUSTED = frozenset({18, 19, 20, 21})
"""OpenSSL's verify codes of a certificate from an untrusted authority (manual of ``openssl-verify``)."""

_BREAKS_A_RULE = range(80, 94)
"""OpenSSL's verify codes of violated rules of RFC 5280 that it enforces in strict mode, Python's default since 3.13."""

_EXPIRED, _NOT_YET_VALID = 10, 9
_OTHER_HOST, _OTHER_ADDRESS = 62, 64

_NO_TLS = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_WANTS_OURS = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE", "UNKNOWN_CA")
"""Alerts of a server, in TLS 1.3 and 1.2, that requires a client certificate or rejects the one it got."""


def tls_problem(error: BaseException, *, authority: str) -> str | None:
    """Return the problem with the server's TLS and the cure; ``None`` if the error has another cause.

    ``authority`` is the caller's option for the file of trusted authorities.
    """
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(cause, authority)
        if isinstance(cause, ssl.SSLError):
            return _refused(str(cause).upper().replace(" ", "_"))
        if "rejected SSL upgrade" in str(cause):  # asyncpg's message
            return _refused(_NO_TLS[0])
    return None


def _untrusted(error: ssl.SSLCertVerificationError, authority: str) -> str:
    code = error.verify_code
    if code in {_EXPIRED, _NOT_YET_VALID}:
        return "its certificate has expired or is not valid yet: renew it, or set the clock"
    if code in {_OTHER_HOST, _OTHER_ADDRESS}:
        return "its certificate is for another host name: connect by a name that it contains"
    if code in _NOT_TRUSTED:
        return f"its certificate is from an authority that is not trusted: name the authority's file with {authority}"
    if code in _BREAKS_A_RULE:
        return (
            f"its certificate, or its authority's, breaks a rule that Python enforces since 3.13 "
            f"({error.verify_message}): reissue it with all extensions that RFC 5280 requires"
        )
    return f"its certificate is not valid (OpenSSL's code {code}): look it up in the manual of openssl-verify"


def _refused(reason: str) -> str:
    if any(word in reason for word in _WANTS_OURS):
        return "it requires a client certificate, or rejects the one it got: name certificate and key in the URL"
    if any(word in reason for word in _NO_TLS):
        return "it does not use TLS on this port: turn TLS on, or correct the port"
    return "compare the versions and ciphers of both sides"
