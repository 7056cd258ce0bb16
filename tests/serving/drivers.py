"""Drivers that a test plays: it says how they are, and sees what was asked of them."""

from glint.core.submission import DriverStatus


class PlayedDrivers:
    """core.submission.Drivers without processes."""

    def __init__(self, cluster: str = "127.0.0.1:6379") -> None:
        self.cluster = cluster
        self.submitted: list[tuple[str, str]] = []
        self.statuses: dict[str, DriverStatus] = {}
        self.printed: dict[str, str] = {}
        self.stopped: list[str] = []

    def submit(self, name: str, job_id: str) -> None:
        if name not in self.statuses:
            self.submitted.append((name, job_id))
            self.statuses[name] = "running"

    def status(self, name: str) -> DriverStatus | None:
        return self.statuses.get(name)

    def logs(self, name: str) -> str:
        return self.printed.get(name, "")

    def stop(self, name: str) -> None:
        self.stopped.append(name)
