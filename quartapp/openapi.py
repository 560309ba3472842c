"""What quart-schema cannot say of an answer by itself: one without a body, or that is no JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from quart_schema.openapi import OpenAPIProvider
from werkzeug.routing import Rule

ATTRIBUTE = "_quartapp_answers"

Handler = TypeVar("Handler", bound=Callable[..., Any])


def answers(status: int, description: str, *media_types: str) -> Callable[[Handler], Handler]:
    """Document an answer of a route, with no body or with one of these media types."""
    content = {media_type: {"schema": {"type": "string"}} for media_type in media_types}
    answer = {"description": description} | ({"content": content} if content else {})

    def documented(handler: Handler) -> Handler:
        known = getattr(handler, ATTRIBUTE, {})
        setattr(handler, ATTRIBUTE, {str(status): answer, **known})
        return handler

    return documented


class Provider(OpenAPIProvider):
    """Adds those answers to the document."""

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        paths, components = super().build_paths(rule)
        known = getattr(self._app.view_functions[rule.endpoint], ATTRIBUTE, {})
        for operations in paths.values():
            for operation in operations.values():
                operation["responses"] = {**known, **operation["responses"]}
        return paths, components
