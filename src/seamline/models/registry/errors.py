"""What can be wrong with kept models.

    RegistryError               SL7720
      ArtefactDamagedError      SL7721  a file is not what its digest says
      UnknownArtefactError      SL7722  there is no such model, version, alias or file
      UnsafeFormatError         SL7723  a file may run code, or is not what its name says
      UntrustedError            SL7724  a signature is missing or wrong
      SourceError               SL7725  a source does not give a model
      ArtefactTooLargeError     SL7726  a model is larger than it may be
      BadReferenceError         SL7727  a name, version, alias or path that cannot be one
      RegistryConflictError     SL7728  it would contradict what is kept

SourceError may heal by itself; the others are for people.
"""

from __future__ import annotations

from seamline.models.errors import ModelError


class RegistryError(ModelError):
    """SL7720: a model could not be kept or given."""

    code = "SL7720"


class ArtefactDamagedError(RegistryError):
    """SL7721: a file is not what its digest says. It is not given to anybody; add the model again."""

    code = "SL7721"


class UnknownArtefactError(RegistryError):
    """SL7722: there is no such model, version, alias or file in the registry."""

    code = "SL7722"


class UnsafeFormatError(RegistryError):
    """SL7723: a file may run code when it is loaded (pickle), reaches outside its model, or is not what it is called.

    Whatever the name, what is inside is looked at. Convert it to safetensors, ONNX or GGUF; ``allow_pickle`` under
    ``[models]`` takes it all the same.
    """

    code = "SL7723"


class UntrustedError(RegistryError):
    """SL7724: a model has no signature of a key in ``trusted_keys``, or one that does not fit."""

    code = "SL7724"


class SourceError(RegistryError):
    """SL7725: a source does not answer, does not let us in, has no such model, or may not be used."""

    code = "SL7725"


class ArtefactTooLargeError(RegistryError):
    """SL7726: a model is larger than ``size_max_mb`` under ``[models]``, or than its source said."""

    code = "SL7726"


class BadReferenceError(RegistryError):
    """SL7727: a name, version, alias or path of a file that cannot be one, such as a path that leaves its folder."""

    code = "SL7727"


class RegistryConflictError(RegistryError):
    """SL7728: a version exists already with other files, or what is to go is in use."""

    code = "SL7728"
