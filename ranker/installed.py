"""Which versions of the libraries are installed that figures depend on."""

from importlib.metadata import PackageNotFoundError, version

LIBRARIES = (
    "hybrid-ranker",
    "torch",
    "transformers",
    "onnxruntime-gpu",
    "onnxruntime",
    "faiss-cpu",
    "faiss-gpu-cu12",
    "implicit",
    "numpy",
)


def libraries() -> dict[str, str]:
    """The versions of the libraries that figures depend on, by name; what is not installed is left out."""
    return {name: number for name in LIBRARIES if (number := _installed(name))}


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
