//! What Prometheus is told.

use axum::http::StatusCode;

use crate::harness::Origin;

on_both_stores!(requests_are_counted_by_route_and_connections_by_state);

async fn requests_are_counted_by_route_and_connections_by_state(store: crate::harness::Store) {
    let origin = Origin::start(store).await;
    for id in ["a", "b"] {
        origin.get(&format!("/posts/{id}")).send().await.is(StatusCode::NOT_FOUND);
    }
    origin.ask("MADE-UP".parse().unwrap(), "/nowhere/at/all").send().await.is(StatusCode::NOT_FOUND);
    let scraped = origin.get("/metrics").send().await.is(StatusCode::OK);
    let text = scraped.body.as_str().unwrap();
    for line in [
        r#"weir_origin_request_duration_seconds_count{method="GET",route="/posts/{id}",status="404"} 2"#,
        r#"weir_origin_request_duration_seconds_count{method="other",route="none",status="404"} 1"#,
        r#"weir_origin_connections{state="used"} "#,
        r#"weir_origin_connections{state="idle"} "#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("nowhere"), "what a client makes up is no label");
}
