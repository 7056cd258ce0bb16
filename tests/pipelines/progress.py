"""Progress that remembers what it was told."""


class Told:
    """What a person would have seen."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stages: list[str] = []
        self.done: list[int] = []

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        self.stages.append(stage)

    def update(self, done: int, note: str = "") -> None:
        self.done.append(done)

    def end(self) -> None:
        pass

    def say(self, line: str) -> None:
        self.lines.append(line)
