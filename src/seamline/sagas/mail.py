"""What one saga was told: cancel, try again, signals, events, a person's answers, and the ends of its children."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from seamline.kernel.codec import CodecError
from seamline.sagas import hearing
from seamline.sagas.errors import SagaCancelled
from seamline.sagas.journal.records import Entry, Message

if TYPE_CHECKING:
    from seamline.sagas.course import Course
    from seamline.sagas.saga import Wait

BY_HAND: Final = "signal by hand"
"""A signal that a person sent. Where it does not fit it is refused and the saga waits on: a slip of the hand must undo
nothing."""

REFUSED_MAX: Final = 10


class Mail:
    """The messages to a saga that runs here, until each is answered."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self.messages: list[Message] = []
        self.seen = 0
        """The number of the last one that came."""
        self.cancels: list[int] = []
        self.refused: dict[str, str] = {}
        """What did not fit, by the message's number: the last few."""

    def remember(self, messages: list[Message], seen: int, refused: dict[str, str]) -> None:
        """Take up what is in the journal."""
        self.messages = messages
        self.seen = max([seen, *(message.n for message in messages)])
        self.refused = refused
        for message in [each for each in messages if each.kind in ("retry", "skip")]:
            messages.remove(message)
            self._course.pen.taken.append(message.n)
            self.try_again(message)

    def go_on(self, before: Mail) -> None:
        """Take over what an earlier run of the saga has not answered."""
        self.messages, self.seen, self.refused = before.messages, before.seen, before.refused

    def deliver(self, messages: list[Message]) -> None:
        """Messages that came since."""
        course = self._course
        if course.leaving:
            return  # it is not to count as seen: whoever takes the saga up next answers it
        for message in messages:
            if message.n > self.seen:
                self.seen = message.n
                self.messages.append(message)
        self.answer()

    def answer(self) -> None:
        """Let everything that waits for a message have it."""
        course = self._course
        for message in [each for each in self.messages if each.kind in ("cancel", "retry", "skip")]:
            self.messages.remove(message)
            error = SagaCancelled(f"saga {course.id!r} was cancelled: {message.body or 'no reason given'}")
            if message.kind == "cancel" and course.stop(error):
                self.cancels.append(message.n)  # it is kept until what it caused is in the journal
                continue
            course.pen.taken.append(message.n)
            if message.kind == "cancel":
                course.note({"cancel": "came too late"})
            else:
                self.try_again(message)
        for wait in list(course.waits.values()):
            if wait.future is not None and not wait.future.done():
                message = self.find(wait)
                if message is not None:
                    wait.future.set_result(message)

    def try_again(self, message: Message) -> None:
        """A person says: now; or that a compensation was done by hand."""
        course = self._course
        if message.kind == "skip":
            entry = Entry(message.name, "undo", "by hand", course.engine.now_ms())
            course.past.undone[message.name] = entry
            course.pen.put_down(entry)
            course.trouble.pop(f"undo {message.name}", None)
        for trouble in course.trouble.values():
            trouble.due_ms, trouble.given_up = 0, False
        for wait in [each for each in course.waits.values() if each.kind == "pause"]:
            if wait.future is not None and not wait.future.done():
                wait.future.set_result(None)

    def find(self, wait: Wait[Any]) -> Message | None:
        """What answers ``wait``, if it has come."""
        kinds = ("signal", BY_HAND) if wait.kind == "signal" else (wait.kind,)
        for message in self.messages:
            if message.name == wait.name and message.kind in kinds:
                if wait.kind == "event" and hearing.heard_id(message.body) in self._course.past.heard:
                    continue
                self.messages.remove(message)
                if message.kind == BY_HAND and not self._fits(wait, message):
                    return self.find(wait)
                return message
        return None

    def _fits(self, wait: Wait[Any], message: Message) -> bool:
        try:
            wait.read(message.body.encode())
        except CodecError as error:
            course = self._course
            self.refused[str(message.n)] = error.fact
            for old in list(self.refused)[:-REFUSED_MAX]:
                del self.refused[old]
            course.pen.taken.append(message.n)
            course.pen.dirty = True
            course.engine.loop.call_soon(course.pen.flush_soon)
            return False
        return True
