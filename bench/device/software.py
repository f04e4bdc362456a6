"""Which code measured: versions of tensorgap and of all that a result depends on."""

import contextlib
import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import bench
from bench.measured import Software


def version() -> str:
    """The version of tensorgap."""
    return bench.__version__


@functools.cache
def git_revision() -> str | None:
    """The commit of the checkout that this code runs from, `-dirty` if changed; None without."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        return subprocess.check_output(
            ["git", *arguments], cwd=here.parent, stderr=subprocess.DEVNULL, text=True, timeout=10
        ).strip()

    try:
        # Installed below some other project's checkout, that project's commit says nothing of us.
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def describe(driver: str | None, nvml: str | None) -> Software:
    """The versions in this process; the driver's are given, because only NVML knows them."""
    import torch

    cudnn = None
    # torch has none, or refuses it for a GPU (before 7.5).
    with contextlib.suppress(RuntimeError):
        cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    return Software(
        python=platform.python_version(),
        # A TorchVersion, which whoever unpickles a row would need torch for.
        torch=str(torch.__version__),
        transformers=installed("transformers") or "absent",
        tensorgap=version(),
        cuda=torch.version.cuda,
        cudnn=None if cudnn is None else str(cudnn),
        driver=driver,
        nvml=nvml,
        ray=installed("ray"),
        os=f"{platform.system()} {platform.release()}",
    )


def installed(package: str) -> str | None:
    """The version of an installed distribution; None where it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
