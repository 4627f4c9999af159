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
  QuarantinedError          SL4015  the peer's certificate is refused before its time
  ForeignRootError          SL4016  the peer's certificate comes from the authority of another trust domain
  WorkloadApiError          SL4017  SPIRE gives no identity
  FederationError           SL4018  another trust domain's bundle cannot be had or used
DelegationError             SL4100  stop: the proof of on whose behalf a call is made is not good
  MalformedTokenError       SL4101  it is no token of this kind
  UntrustedSignerError      SL4102  a link is not signed by a module of this application that may sign it
  BrokenChainError          SL4103  its links do not follow each other, or one gives more than the one before
  WrongAudienceError        SL4104  it was made for another module, or comes from one that it was not made by
  ExpiredTokenError         SL4105  its time is over, or has not come
  UnknownKeyError           SL4106  nobody has told (yet) whose key signed a link
PolicyError                 SL4500  stop: the policy in force stays as it was
  PolicySyntaxError         SL4501  a file is not Cedar
  UnknownPolicyNameError    SL4502  a policy names what does not exist
  PolicyTypeError           SL4503  a policy can never apply or reads what is not there
  PolicyTestError           SL4504  ``tests.toml`` cannot be used
  MissingPermitError        SL4505  the code asks for what the policy does not permit
  BundleError               SL4506  a bundle cannot be used
    BundleSignatureError    SL4507  ... because of its signature
    BundleReplayError       SL4508  ... because of its number
  DecisionPointError        SL4509  who decides elsewhere gave no answer
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


class QuarantinedError(IdentityError):
    """The peer is a module that was set apart with `seamline identity quarantine`: its certificate is refused."""

    code: ClassVar[str] = "SL4015"


class ForeignRootError(IdentityError):
    """A certificate names one trust domain and was signed by the authority of another, which has no say there."""

    code: ClassVar[str] = "SL4016"


class WorkloadApiError(IdentityError):
    """With ``source = "spire"`` under ``[identity]`` each process has its identities from SPIRE's agent.

    The agent must run, ``socket`` name its socket, and each module (and ``gateway``) have an entry that fits the
    process: ``spiffe://<trust domain>/<app>/<module>``.
    """

    code: ClassVar[str] = "SL4017"


class FederationError(IdentityError):
    """The bundle of another trust domain could not be fetched, proven or read; the one that was known stays."""

    code: ClassVar[str] = "SL4018"


class DelegationError(IdentityError):
    """The proof of on whose behalf a call is made is not good. The call is refused; nothing ran."""

    code: ClassVar[str] = "SL4100"


class MalformedTokenError(DelegationError):
    """SL4101: a delegation token is not written as one: another algorithm, a key inside it, too long, or damaged."""

    code: ClassVar[str] = "SL4101"


class UntrustedSignerError(DelegationError):
    """SL4102: a link of a delegation token is not signed by who it says, or by a module that may not begin one.

    Only the gateway says who the user is, and each module signs for itself, with the key of its certificate.
    """

    code: ClassVar[str] = "SL4102"


class BrokenChainError(DelegationError):
    """SL4103: the links of a delegation token do not follow each other, or one claims more than it was given.

    A link may only narrow: a shorter time, fewer scopes.
    """

    code: ClassVar[str] = "SL4103"


class WrongAudienceError(DelegationError):
    """SL4104: a delegation token was made for another module, or is shown by one that did not make its last link."""

    code: ClassVar[str] = "SL4104"


class ExpiredTokenError(DelegationError):
    """SL4105: a delegation token's time is over, or has not come. Compare the clocks of both machines."""

    code: ClassVar[str] = "SL4105"


class UnknownKeyError(DelegationError):
    """SL4106: the key that signed a link is not known here yet. It is asked for, and the call is tried again."""

    code: ClassVar[str] = "SL4106"


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


class BundleError(PolicyError):
    """A policy bundle cannot be used: it is none, is for another application, or there is none to go back to.

    The policy in force stays.
    """

    code: ClassVar[str] = "SL4506"


class BundleSignatureError(BundleError):
    """A policy bundle is not signed by the key in ``[policy] bundle_key``, or was changed since."""

    code: ClassVar[str] = "SL4507"


class BundleReplayError(BundleError):
    """A policy bundle is not newer than every one that was applied before."""

    code: ClassVar[str] = "SL4508"


class DecisionPointError(PolicyError):
    """``[policy] decision_point`` gave no answer that can be understood, or none in time. The call is refused."""

    code: ClassVar[str] = "SL4509"


class MissingPermitError(PolicyError):
    """A module asks for a contract of which it may call nothing, or has a route that the gateway may not follow.

    Nothing is refused at the start: each such call is, when it comes.
    """

    code: ClassVar[str] = "SL4505"
