"""Modelled: a provider whose model says what becomes of connections and messages.

What is personal (no such mailbox, mailbox full, a virus) is said as in the record: of that a model knows nothing.
"""

from collections.abc import Callable

from mta_policies.answers import Answer
from mta_policies.provider_model import NewModel, ProviderModel
from mta_policies.rehearsal.recorded import Recorded
from mta_policies.rehearsal.traffic import Mail, Stream


class Modelled:
    """A `Provider` by models, one for each provider."""

    def __init__(self, new_model: NewModel, name_of: Callable[[Stream], str], record: Recorded) -> None:
        """`name_of`: which provider mail goes to."""
        self._new_model = new_model
        self._name_of = name_of
        self._models: dict[str, ProviderModel] = {}
        self._record = record
        self._asked: tuple[float, int, str] | None = None
        self._said: Answer | None = None

    def _model(self, stream: Stream) -> ProviderModel:
        name = self._name_of(stream)
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = self._new_model()
        return model

    def opened(self, stream: Stream, now_s: float) -> Answer | None:
        return self._model(stream).opened(stream.subject, now_s)

    def closed(self, stream: Stream, now_s: float) -> None:
        self._model(stream).closed(stream.subject, now_s)

    def down_until_s(self, stream: Stream, now_s: float) -> float:
        del stream
        return now_s

    def answer(self, mail: Mail, first_s: float, now_s: float) -> Answer | None:
        subject = mail.stream.subject
        asked = (now_s, mail.message, subject.source)
        if asked != self._asked:  # a model counts messages: the other recipients of one hear the same
            self._asked, self._said = asked, self._model(mail.stream).answer(subject, now_s)
        return self._said if self._said is not None else self._record.personal(mail, first_s, now_s)
