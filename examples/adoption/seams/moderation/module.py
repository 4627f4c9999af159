from reviews_before.moderation import Verdict, assess

from seamline import Module
from seams.moderation import Moderation

module = Module("moderation", provides=Moderation)


@module.service
class ModerationService(Moderation):
    async def assess(self, text: str) -> Verdict:
        return assess(text)
