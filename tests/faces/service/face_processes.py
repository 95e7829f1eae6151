"""Pools of face processes for tests."""

import psutil

from serving.contract.image_limits import ImageLimits
from serving.faces.service.pool import FacePool
from serving.faces.service.worker import WorkerSettings


def new_pool(*, processes: int = 1, waiting: int = 0, timeout_seconds: float = 60) -> FacePool:
    settings = WorkerSettings(ImageLimits(), 800, preload=False)
    return FacePool(settings, processes=processes, waiting=waiting, timeout_seconds=timeout_seconds)


def face_processes(parent: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(parent).children() if "spawn_main" in " ".join(child.cmdline())]
