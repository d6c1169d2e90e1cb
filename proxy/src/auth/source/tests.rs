//! The Redis source against a real server.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use redis::AsyncCommands as _;

use super::*;

/// A redis-server in a temporary folder, stopped with the value.
struct Server {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let process = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing: install Debian's package redis-server");
        let mut server = Self { process, port, _folder: folder };
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert_eq!(server.process.try_wait().unwrap(), None, "redis-server ended early");
            tokio::task::yield_now().await;
        }
        server
    }

    fn connection(&self) -> Redis {
        redis(&format!("127.0.0.1:{}", self.port), "5s")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// As a plan describes it.
fn redis(address: &str, timeout: &str) -> Redis {
    let text = format!(
        "listeners: [127.0.0.1:1]\nupstreams: {{ o: {{ servers: [127.0.0.1:2] }} }}\nroutes: [{{ to: o }}]\n\
         redis: {{ url: \"redis://{address}\", timeout: {timeout} }}\n"
    );
    let loaded = weir_config::load("t", &text, &|_: &str| None).unwrap_or_else(|report| panic!("{report}"));
    Redis::new(&loaded.plan.redis.unwrap()).unwrap()
}

#[test]
fn the_token_goes_into_the_key_as_it_is() {
    let parts = [Part::Text("session:".into()), Part::Value(weir_config::template::Variable::Token)];
    assert_eq!(key(&parts, &Token::parse(b"a:b%2F/c").unwrap()), "session:a:b%2F/c");
}

#[tokio::test]
async fn a_session_is_found_until_it_is_deleted_and_a_dead_redis_is_no_no() {
    let server = Server::start().await;
    let mut connection = server.connection();
    let () = connection.set("session:t", r#"{"user_id":"u"}"#).await.unwrap();
    let found = get(connection.clone(), "session:t", Form::Text).await;
    assert_eq!(found, Ok(Some(Held { said: Said::Text(br#"{"user_id":"u"}"#.into()), left: None })));
    let () = connection.expire("session:t", 100).await.unwrap();
    let left = get(connection.clone(), "session:t", Form::Text).await.unwrap().unwrap().left.unwrap();
    assert!(left <= Duration::from_secs(100) && left > Duration::from_secs(50), "{left:?}");
    assert_eq!(get(connection.clone(), "session:x", Form::Text).await, Ok(None));
    let () = connection.del("session:t").await.unwrap();
    assert_eq!(get(connection.clone(), "session:t", Form::Text).await, Ok(None));
    drop(server);
    assert!(get(connection, "session:t", Form::Text).await.is_err());
}

#[tokio::test]
async fn a_silent_redis_is_unavailable_within_the_bound() {
    // Accepts into its backlog and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = redis(&silent.local_addr().unwrap().to_string(), "50ms");
    let error = get(connection, "session:t", Form::Text).await.unwrap_err();
    assert!(error.to_string().contains("within 50ms"), "{error}");
}

#[tokio::test]
async fn a_hash_is_its_fields_and_another_kind_of_key_is_no_session() {
    let server = Server::start().await;
    let mut connection = server.connection();
    let () = connection.hset_multiple("session:h", &[("uid", &b"u1"[..]), ("raw", b"\xff")]).await.unwrap();
    let () = connection.expire("session:h", 100).await.unwrap();
    let ask = |key, format| get(connection.clone(), key, format);
    let held = ask("session:h", Form::Hash).await.unwrap().unwrap();
    assert_eq!(held.said, Said::Hash(vec![("uid".into(), "u1".into())]));
    assert!(held.left.unwrap() <= Duration::from_secs(100));
    assert_eq!(ask("session:x", Form::Hash).await, Ok(None));
    assert!(ask("session:h", Form::Mark).await.unwrap().is_some(), "whatever it is");
    assert_eq!(ask("session:x", Form::Mark).await, Ok(None));
    assert_eq!(ask("session:h", Form::Text).await, Ok(None));
    assert_eq!(ask("session:h", Form::Time).await.unwrap().unwrap().said, Said::Text(Vec::new()));
    let mut other = connection.clone();
    let () = other.set("session:t", "text").await.unwrap();
    assert_eq!(ask("session:t", Form::Hash).await, Ok(None));
}
