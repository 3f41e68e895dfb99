"""Where jobs run: one schedule, and the executors that it hands jobs to."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "executor": ["Executor", "Job", "TimeLimit", "backend"],
        "local": ["LocalExecutor"],
        "reporter": ["Reporter"],
        "schedule": ["Task"],
    },
)
