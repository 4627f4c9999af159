"""Errors of identity and policy: who is asking could not be proven, or may not.

IdentityError               SL4000  stop: the peer or the key material is not what it should be
  AuthorityError            SL4001  the root key or its folder cannot be used; nothing starts
  CertificateRequestError   SL4002  a worker's certificate request is not acceptable
  SvidError                 SL4003  a certificate or bundle offered for installation is not acceptable
  NoSvidError               SL4004  no certificate is installed for the module
  NoPeerCertificateError    SL4010  the peer showed no certificate
  NotSpiffeError            SL4011  the peer's certificate holds no single SPIFFE ID
  ForeignTrustDomainError   SL4012  the peer belongs to another trust domain
  ForeignApplicationError   SL4013  the peer belongs to another application
  UnexpectedModuleError     SL4014  the peer is another module than the one asked for
PolicyError                 SL4500  stop: the policy in force stays as it was
  PolicySyntaxError         SL4501  a file is not Cedar
  UnknownPolicyNameError    SL4502  a policy names what does not exist
  PolicyTypeError           SL4503  a policy can never apply or reads what is not there
  PolicyTestError           SL4504  ``tests.toml`` cannot be used
  MissingPermitError        SL4505  the code asks for what the policy does not permit
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from seamline.kernel.errors import SeamlineError


class IdentityError(SeamlineError):
    """A module's identity could not be made, kept or proven."""

    code: ClassVar[str] = "SL4000"


class AuthorityError(IdentityError):
    """The certificate authority in the data folder cannot be used, so nothing starts.

    Its folder must have mode 0700 and its file mode 0600, both owned by whoever runs Seamline. Where the key is
    sealed with a passphrase, the same passphrase is needed at each start.
    """

    code: ClassVar[str] = "SL4001"


class CertificateRequestError(IdentityError):
    """A worker asked for a certificate that the authority does not issue.

    The request must be signed with the P-256 key it carries; names in it are ignored, since a worker is given the
    identity that the supervisor attested.
    """

    code: ClassVar[str] = "SL4002"


class SvidError(IdentityError):
    """A certificate, key or trust bundle was offered for installation that is not the module's own, or is broken."""

    code: ClassVar[str] = "SL4003"


class NoSvidError(IdentityError):
    """A module without an installed certificate cannot open or accept connections."""

    code: ClassVar[str] = "SL4004"


class NoPeerCertificateError(IdentityError):
    """The peer showed no certificate. Every connection between processes needs one on both sides."""

    code: ClassVar[str] = "SL4010"


class NotSpiffeError(IdentityError):
    """The peer's certificate is trusted but does not hold exactly one SPIFFE ID of a module."""

    code: ClassVar[str] = "SL4011"


class ForeignTrustDomainError(IdentityError):
    """The peer belongs to another trust domain. Domains do not trust one another."""

    code: ClassVar[str] = "SL4012"


class ForeignApplicationError(IdentityError):
    """The peer belongs to another application of the same trust domain."""

    code: ClassVar[str] = "SL4013"


class UnexpectedModuleError(IdentityError):
    """The peer is a module of this application, but not the one that the connection was opened to."""

    code: ClassVar[str] = "SL4014"


class PolicyError(SeamlineError):
    """The policy cannot be used. A running application keeps the policy it has.

    ``findings`` holds every mistake of one reading, this one first.
    """

    code: ClassVar[str] = "SL4500"

    def __init__(self, fact: str, remedy: str = "", *, place: str | None = None) -> None:
        super().__init__(fact, remedy, place=place)
        self.findings: Sequence[PolicyError] = (self,)


class PolicySyntaxError(PolicyError):
    """A policy file is not Cedar."""

    code: ClassVar[str] = "SL4501"


class UnknownPolicyNameError(PolicyError):
    """A policy names a module, method or contract that the application does not have."""

    code: ClassVar[str] = "SL4502"


class PolicyTypeError(PolicyError):
    """A policy can never apply, or its condition reads an attribute that is not there or of another type."""

    code: ClassVar[str] = "SL4503"


class PolicyTestError(PolicyError):
    """``policy/tests.toml`` is missing, malformed, or names what does not exist, so that it would test nothing."""

    code: ClassVar[str] = "SL4504"


class MissingPermitError(PolicyError):
    """A module asks for a contract of which it may call nothing, or has a route that the gateway may not follow.

    Nothing is refused at the start: each such call is, when it comes.
    """

    code: ClassVar[str] = "SL4505"
