"""passthrough as it is where the kernel does not read and write files itself."""

from fused.filesystems.passthrough import Passthrough
from fused.filesystems.survival import Features


class Asked(Passthrough):
    """The kernel asks for everything."""

    def __init__(self, source: str, cache: str = "shared") -> None:
        super().__init__(source, cache)

    @property
    def features(self) -> Features:
        features = super().features
        return features._replace(flags=tuple(f for f in features.flags if f != "PASSTHROUGH"))
