"""What quart-schema cannot say of an answer by itself: one without a body, one that is no JSON, the
events of a stream; and every model by its name, so that clients can be made from the document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel
from quart_schema.openapi import OpenAPIProvider
from quart_schema.validation import DataSource
from werkzeug.routing import BaseConverter, Rule

ANSWERS = "_quartapp_answers"
EVENTS = "_quartapp_events"

EVENT_STREAM = "text/event-stream"

Handler = TypeVar("Handler", bound=Callable[..., Any])
Schemas = dict[str, Any]


def answers(status: int, description: str, *media_types: str) -> Callable[[Handler], Handler]:
    """Document an answer of a route, with no body or with one of these media types."""
    content = {media_type: {"schema": {"type": "string"}} for media_type in media_types}
    answer = {"description": description} | ({"content": content} if content else {})

    def documented(handler: Handler) -> Handler:
        known = getattr(handler, ANSWERS, {})
        setattr(handler, ANSWERS, {str(status): answer, **known})
        return handler

    return documented


def streams(events: Mapping[str, type[BaseModel]]) -> Callable[[Handler], Handler]:
    """Document a route that answers with a stream: what the data of each event is, by its name.

    OpenAPI 3.1 has no word for events, so they stand under `x-events`.
    """

    def documented(handler: Handler) -> Handler:
        setattr(handler, EVENTS, dict(events))
        return handler

    return documented


class Provider(OpenAPIProvider):
    """Adds all that to the document."""

    def schema(self) -> Schemas:
        document: Schemas = super().schema()
        for model in document["components"]["schemas"].values():
            for field in model.get("properties", {}).values():
                field.pop("title", None)  # its name over again
        return document

    def build_paths(self, rule: Rule) -> tuple[Schemas, Schemas]:
        paths, components = super().build_paths(rule)
        handler = self._app.view_functions[rule.endpoint]
        known = dict(getattr(handler, ANSWERS, {}))
        if (events := getattr(handler, EVENTS, None)) is not None:
            known["200"], schemas = _stream(events)
            components.update(schemas)
        for operations in paths.values():
            for operation in operations.values():
                operation["responses"] = {**known, **operation["responses"]}
        return paths, components

    def build_path_parameter(self, name: str, converter: BaseConverter) -> Schemas:
        parameter: Schemas = super().build_path_parameter(name, converter)
        if "enum" in parameter["schema"]:
            parameter["schema"]["enum"].sort()  # a set has another order in each process
        return parameter

    def build_request_body(self, model: Any, source: DataSource) -> tuple[Schemas, Schemas]:
        body, components = super().build_request_body(model, source)
        return body | {"required": True}, components | _by_name(body["content"], model)

    def build_response_object(self, model: Any, headers_model: Any) -> tuple[Schemas, Schemas]:
        answer, components = super().build_response_object(model, headers_model)
        components |= _by_name(answer["content"], model)
        if media_type := getattr(model, "media_type", None):
            answer["content"] = {media_type: answer["content"]["application/json"]}
        return answer, components


def _by_name(content: Schemas, model: type[BaseModel]) -> Schemas:
    """Put a reference in place of the schema that stands in `content`; returns the schema as a
    component."""
    (media,) = content.values()
    schema, media["schema"] = media["schema"], _reference(model)
    return {model.__name__: schema}


def _stream(events: Mapping[str, type[BaseModel]]) -> tuple[Schemas, Schemas]:
    components: Schemas = {}
    for model in events.values():
        schema = model.model_json_schema(
            mode="serialization", ref_template="#/components/schemas/{model}"
        )
        components |= schema.pop("$defs", {}) | {model.__name__: schema}
    names = {name: _reference(model) for name, model in events.items()}
    media = {"schema": {"type": "string"}, "x-events": names}
    return {"description": "The stream", "content": {EVENT_STREAM: media}}, components


def _reference(model: type[BaseModel]) -> Schemas:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
