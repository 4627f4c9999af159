"""What can be wrong with a saga, and what it can end in.

    SagasError              SL7300
      UnknownSagaError      SL7301  there is no such saga, or no such type of saga in this module
      SagaEndedError        SL7302  the saga has ended and takes no more signals
      SagaMismatchError     SL7303  the code does not do what its journal says it did; the saga is stuck
      DamagedJournalError   SL7304  a journal's entry is not what was written; the saga is stuck
      NewerJournalError     SL7305  a newer release wrote the journal; nothing is touched
      StepFailed            SL7306  a step failed with an error that is no fault
      SagaCancelled         SL7307  the saga was cancelled and what it had done was undone
      SagaTimedOut          SL7308  the saga took longer than it may; what it had done was undone
      ApprovalExpired       SL7309  nobody approved or refused in time
      WaitExpired           SL7310  no signal or event came in time
      UntypedStepError      SL7311  a step's function does not say what its values are
      SagaBusyError         SL7312  no new sagas are taken: the journal cannot be written, or this process ends
      LostSagasError        SL7313  another process took over this one's sagas; it goes on there
      SagaUseError          SL7314  a saga used its ``s`` in a way that cannot be replayed

A StepFailed, an expired wait, a fault or a call's error that leaves the saga's function makes the engine undo what was
done. SL7303 to SL7305 leave everything as it is until somebody has acted.
"""

from __future__ import annotations

from seamline.kernel.errors import SeamlineError


class SagasError(SeamlineError):
    """SL7300: a saga could not be started, reached or continued."""

    code = "SL7300"


class UnknownSagaError(SagasError):
    """SL7301: there is no such saga, or no such type of saga in this module."""

    code = "SL7301"


class SagaEndedError(SagasError):
    """SL7302: the saga has ended and takes no more signals."""

    code = "SL7302"


class SagaMismatchError(SagasError):
    """SL7303: the code does not do what its journal says it did.

    The saga stays as it is, and is shown as stuck. Deploy the code it began with, or put the change behind
    ``if s.patched("..."):``; then ``seamline sagas retry``. A course that changed altogether is a new ``version=``.
    """

    code = "SL7303"


class DamagedJournalError(SagasError):
    """SL7304: a journal's entry does not have the checksum it was written with, or does not fit its type.

    The saga stays as it is, and is shown as stuck. Restore the database's last copy, or settle it by hand.
    """

    code = "SL7304"


class NewerJournalError(SagasError):
    """SL7305: a newer release of Seamline wrote the journal. Nothing was read or changed."""

    code = "SL7305"


class StepFailed(SagasError):
    """SL7306: a step failed with an error that is no fault; the saga's function may catch it."""

    code = "SL7306"


class SagaCancelled(SagasError):
    """SL7307: the saga was cancelled and what it had done was undone."""

    code = "SL7307"


class SagaTimedOut(SagasError):
    """SL7308: the saga took longer than it may; what it had done was undone."""

    code = "SL7308"


class ApprovalExpired(SagasError):
    """SL7309: nobody approved or refused in time."""

    code = "SL7309"


class WaitExpired(SagasError):
    """SL7310: no signal or event came in time."""

    code = "SL7310"


class UntypedStepError(SagasError):
    """SL7311: a step's function does not say what its values are, so that they cannot be journalled."""

    code = "SL7311"


class SagaBusyError(SagasError):
    """SL7312: no new sagas are taken: the journal cannot be written, or this process ends."""

    code = "SL7312"


class LostSagasError(SagasError):
    """SL7313: another process took over the sagas of this one, which was not heard of for too long."""

    code = "SL7313"


class SagaUseError(SagasError):
    """SL7314: a saga used its ``s`` in a way that cannot be replayed."""

    code = "SL7314"
