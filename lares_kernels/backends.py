"""Offer what a third party's backend needs; ``registry/backends.py`` documents its use."""

from lares_kernels.registry.backends import (
    Backend,
    CatalogueBackend,
    available_backends,
    register,
    register_catalogue,
    use_backend,
)
from lares_kernels.spec.call import Given, GivenBackward
from lares_kernels.spec.serves import ANY_WIDTH, ServesCatalogues, ServesCores

__all__ = [
    "ANY_WIDTH",
    "Backend",
    "CatalogueBackend",
    "Given",
    "GivenBackward",
    "ServesCatalogues",
    "ServesCores",
    "available_backends",
    "register",
    "register_catalogue",
    "use_backend",
]
