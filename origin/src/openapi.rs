//! `GET /openapi.json`: what the service takes and gives, made from its types and the table of its [`operations`].
//!
//! OpenAPI 3.1, whose schemas are JSON Schema 2020-12. A test asks the running service whether it agrees: that each operation is
//! there and no other, that it wants the fields that are called required, and knows the others.

pub mod operations;

use std::sync::{Arc, LazyLock};

use axum::{Router, http::header, response::IntoResponse, routing::get};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use self::operations::OPERATIONS;
use crate::app::App;

/// The text that [`crate::fields::rule::text`] takes.
pub const TEXT: &str = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$";
/// The beginning of the URLs that [`crate::fields::rule::url`] takes.
pub const WEB: &str = r"^https?://[a-z0-9]";

/// The beginning of the instants that [`crate::fields::rule::instant`] takes.
pub const CENTURIES: &str = "^2[0-9]{3}-";

/// The document, made once.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// One thing to ask for.
#[derive(Debug)]
pub struct Operation {
    /// In lower case, as OpenAPI has it.
    pub method: &'static str,
    /// With its parameters in braces.
    pub path: &'static str,
    /// A line for people.
    pub summary: &'static str,
    /// Who may ask.
    pub who: Who,
    /// What narrows a list.
    pub query: Option<Shape>,
    /// What is sent.
    pub body: Body,
    /// What comes back, and with which status.
    pub answer: (u16, Answer),
}

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Anybody.
    Anybody,
    /// The holder of a session's token.
    Token,
    /// Either the holder of a token or whom the edge names.
    Either,
    /// Whom the edge names in its signed header.
    Caller,
}

/// Makes the schema of a type.
pub type Shape = fn(&mut SchemaGenerator) -> Schema;

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    /// Nothing.
    None,
    /// All of it.
    Whole(Shape),
    /// Any part of it; the rest stays.
    Part(Shape),
    /// A list of it, under this name.
    Many(&'static str, Shape),
}

/// What comes back.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// A status alone.
    None,
    /// One thing.
    One(Shape),
    /// A page of things, under this name; then the query takes `limit` and `cursor`.
    Page(&'static str, Shape),
}

/// The schema of `T`.
#[must_use]
pub const fn of<T: JsonSchema>() -> Shape {
    SchemaGenerator::subschema_for::<T>
}

/// The route of the document.
pub fn routes() -> Router<Arc<App>> {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        // The same until another version is deployed.
        (header::CACHE_CONTROL, "public, max-age=300"),
    ];
    Router::new().route("/openapi.json", get(async move || (headers, DOCUMENT.as_str()).into_response()))
}

/// The whole document.
#[must_use]
pub fn document() -> Value {
    // Every schema stands where it is used: nobody has to follow references, and a type may look different coming and going.
    let settings = || SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut taken = settings().for_deserialize().into_generator();
    let mut given = settings().for_serialize().into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = operation.document(&mut taken, &mut given);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "session": { "type": "http", "scheme": "bearer" },
                "identity": { "type": "apiKey", "in": "header", "name": "x-weir-identity" },
            },
            "responses": { "Refusal": {
                "description": "why not",
                "content": { "application/json": { "schema": {
                    "type": "object", "required": ["error"], "properties": { "error": {
                        "type": "object", "required": ["code", "message"], "properties": {
                            "code": { "type": "string" },
                            "message": { "type": "string" },
                            "fields": { "type": "object", "additionalProperties": { "type": "string" } },
                        },
                    } },
                } } },
            } },
        },
    })
}

impl Operation {
    fn document(&self, taken: &mut SchemaGenerator, given: &mut SchemaGenerator) -> Value {
        let mut document = json!({
            "summary": self.summary,
            "parameters": self.parameters(taken),
            "responses": { "default": { "$ref": "#/components/responses/Refusal" } },
            "security": match self.who {
                Who::Anybody => json!([]),
                Who::Token => json!([{ "session": [] }]),
                Who::Either => json!([{ "session": [] }, { "identity": [] }]),
                Who::Caller => json!([{ "identity": [] }]),
            },
        });
        let body = match self.body {
            Body::None => None,
            Body::Whole(shape) => Some(shape(taken).to_value()),
            Body::Part(shape) => {
                let mut part = shape(taken).to_value();
                part.as_object_mut().and_then(|part| part.remove("required"));
                Some(part)
            }
            Body::Many(name, shape) => {
                let mut one = shape(taken).to_value();
                if one["type"] == "object" {
                    one["additionalProperties"] = json!(false);
                }
                let list = json!({ "type": "array", "minItems": 1, "maxItems": 100, "items": one });
                Some(json!({ "type": "object", "required": [name], "properties": { name: list } }))
            }
        };
        if let Some(mut schema) = body {
            // What we do not know we refuse.
            schema["additionalProperties"] = json!(false);
            document["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        }
        let (status, answer) = self.answer;
        let schema = match answer {
            Answer::None => None,
            Answer::One(shape) => Some(shape(given).to_value()),
            Answer::Page(name, shape) => Some(json!({
                "type": "object", "required": [name, "nextCursor"], "properties": {
                    name: { "type": "array", "items": shape(given) },
                    "nextCursor": { "type": ["string", "null"] },
                },
            })),
        };
        let response = &mut document["responses"][status.to_string()];
        *response = json!({ "description": "done" });
        if let Some(schema) = schema {
            response["content"] = json!({ "application/json": { "schema": schema } });
        }
        document
    }

    fn parameters(&self, taken: &mut SchemaGenerator) -> Vec<Value> {
        let in_path = self.path.split(['{', '}']).skip(1).step_by(2).map(
            |name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
        );
        let mut all: Vec<_> = in_path.collect();
        let mut query = |name: &str, schema: &Value| {
            all.push(json!({ "name": name, "in": "query", "required": false, "schema": schema }));
        };
        if let Some(shape) = self.query {
            let schema = shape(taken).to_value();
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                query(name, schema);
            }
        }
        if let (_, Answer::Page(..)) = self.answer {
            query("limit", &json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 20 }));
            query("cursor", &json!({ "type": "string", "description": "nextCursor of the page before" }));
        }
        all
    }
}
