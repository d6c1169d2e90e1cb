//! The document and the service agree.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::harness::{Origin, Person, Store};

/// An id that nothing has.
const NOBODY: &str = "01900000-0000-7000-8000-000000000000";

async fn start() -> (Origin, Person, Value) {
    let origin = Origin::start(Store::Sqlite).await;
    let root = origin.person_with("root", "admin").await;
    let document = origin.get("/openapi.json").send().await.is(StatusCode::OK).body;
    (origin, root, document)
}

/// Each operation as method, path and its description.
fn operations(document: &Value) -> Vec<(Method, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let each = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(move |(method, it)| (method.to_uppercase().parse().unwrap(), path.as_str(), it))
    });
    each.collect()
}

#[tokio::test]
async fn every_route_is_in_the_document_and_nothing_else() {
    let (origin, _, document) = start().await;
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (method, path, _) in operations(&document) {
        documented.entry(path.into()).or_default().insert(method.to_string());
    }
    let sources = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
    let files = sources.map(|file| file.unwrap().path()).filter(|path| path.is_file());
    let text: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let routes = text.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    let mut routes: BTreeSet<_> = routes.collect();
    // The document itself, and what only Prometheus asks for.
    assert!(routes.remove("/openapi.json") && routes.remove("/metrics"));
    assert_eq!(routes, documented.keys().cloned().collect());

    for (path, methods) in documented {
        let refused = origin.ask(Method::TRACE, &path.replace("{id}", NOBODY)).send().await;
        let refused = refused.refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
        let allowed: BTreeSet<_> = refused.head("allow").split(',').map(str::to_owned).collect();
        let allowed: BTreeSet<_> = allowed.into_iter().filter(|method| method != "HEAD").collect();
        assert_eq!(allowed, methods, "{path}");
    }
}

#[tokio::test]
async fn bodies_want_what_is_required_and_know_what_is_named() {
    let (origin, root, document) = start().await;
    for (method, path, operation) in operations(&document) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let Some(properties) = schema["properties"].as_object() else { continue };
        let required = schema["required"].as_array().into_iter().flatten();
        let required: BTreeSet<_> = required.filter_map(Value::as_str).collect();
        // Of something that is there, so that the body is looked at.
        let id = match path {
            "/api/vault/items/{id}" => origin.item(&root, json!({ "type": "memory", "title": "x" })).await,
            "/api/notes/{id}" | "/posts/{id}" => {
                let list = path.trim_end_matches("/{id}");
                origin.post(list).by(&root).json(json!({ "title": "x" })).send().await.text("/id")
            }
            _ => NOBODY.into(),
        };
        let place = path.replace("{id}", &id);
        let ask = async |body: &Map<String, Value>| {
            origin.ask(method.clone(), &place).by(&root).json(json!(body)).send().await
        };
        if !required.is_empty() {
            let refused = ask(&Map::new()).await.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
            assert_eq!(refused.fields().into_iter().collect::<BTreeSet<_>>(), required, "{method} {path}");
        }
        // An object is a right value of none of them, and one more is unknown.
        let mut wrong: Map<_, _> = properties.keys().map(|name| (name.clone(), json!({}))).collect();
        wrong.insert("surprise".into(), json!(1));
        let refused = ask(&wrong).await.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
        assert_eq!(refused.fields().len(), wrong.len(), "{method} {path}: {:?}", refused.fields());
        for name in properties.keys() {
            let problem = &refused.body["error"]["fields"][name];
            assert_ne!(problem, "is not a field we know", "{method} {path}: {name}");
        }
    }
}

#[tokio::test]
async fn queries_know_what_is_named_and_nothing_else() {
    let (origin, root, document) = start().await;
    for (method, path, operation) in operations(&document) {
        let parameters = operation["parameters"].as_array().unwrap().iter();
        let names: Vec<_> =
            parameters.filter(|p| p["in"] == "query").map(|p| p["name"].as_str().unwrap()).collect();
        if names.is_empty() {
            continue;
        }
        let query: String = names.iter().map(|name| format!("{name}=%00&")).collect();
        let refused = origin.ask(method, &format!("{path}?{query}surprise=1")).by(&root).send().await;
        let refused = refused.refused(StatusCode::BAD_REQUEST, "invalid_query");
        for name in names {
            let problem = &refused.body["error"]["fields"][name];
            assert!(problem.is_string() && problem != "is not a field we know", "{path}: {name}: {problem}");
        }
        assert_eq!(refused.body["error"]["fields"]["surprise"], "is not a field we know");
    }
}

#[tokio::test]
async fn answers_have_what_is_promised() {
    let (origin, root, document) = start().await;
    let item = origin.item(&root, json!({ "type": "memory", "title": "x" })).await;
    let note = origin.post("/api/notes").by(&root).json(json!({ "title": "x" })).send().await.text("/id");
    let post = origin.post("/posts").by(&root).json(json!({ "title": "x" })).send().await.text("/id");
    for (method, path, operation) in operations(&document) {
        if method != Method::GET {
            continue;
        }
        let id = [("vault", &item), ("notes", &note), ("posts", &post)];
        let id = id.iter().find(|(part, _)| path.contains(part)).map_or(NOBODY, |(_, id)| id);
        let ask = origin.get(&path.replace("{id}", id));
        let ask = if path == "/auth/session" { ask.bearer(&root.token) } else { ask.by(&root) };
        let answer = ask.send().await.is(StatusCode::OK);
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        fits(&answer.body, schema, path);
    }
}

/// Every property is promised and every promise is kept, all the way down.
fn fits(value: &Value, schema: &Value, at: &str) {
    if let (Some(value), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        let names = |map: &Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(value), names(properties), "{at}");
        for (name, value) in value {
            fits(value, &properties[name], &format!("{at}.{name}"));
        }
    }
    for value in value.as_array().into_iter().flatten() {
        fits(value, &schema["items"], &format!("{at}[]"));
    }
}
