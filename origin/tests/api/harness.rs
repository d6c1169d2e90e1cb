//! An origin to ask, and people who ask it.

use std::{
    fmt::Debug,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use weir_origin::{
    admin,
    app::{self, App},
    config::ServeConfig,
    database::{Moment, Words},
    token::Token,
};
use weir_testkit::{PgBouncer, Postgres, Redis};

pub(crate) const SECRET: &str = "a test's secret of more than thirty-two bytes";
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// One server for this test process, one database for each test.
pub(crate) static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| {
    // For the tests of plans; the log says whose line it is.
    Postgres::start_with(&[
        "shared_preload_libraries=pg_stat_statements,auto_explain",
        "log_line_prefix=<%d> ",
    ])
});

/// Two server connections for each database, so that the statements of an instance do meet several of them, and each other.
pub(crate) static PGBOUNCER: LazyLock<PgBouncer> = LazyLock::new(|| PgBouncer::start(&POSTGRES, 2));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Sqlite,
    Postgres,
    /// Postgres, through a PgBouncer that pools transactions.
    PgBouncer,
}

/// Runs each case, an `async fn(Store)`, on both stores, and on the second also through PgBouncer.
macro_rules! on_both_stores {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case($crate::harness::Store::Sqlite).await; })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case($crate::harness::Store::Postgres).await; })*
        }
        mod pgbouncer {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case($crate::harness::Store::PgBouncer).await; })*
        }
    };
}

/// A running origin with a store of its own.
pub(crate) struct Origin {
    pub(crate) app: Arc<App>,
    pub(crate) redis: Option<Redis>,
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
    server: JoinHandle<std::io::Result<()>>,
    database_url: String,
    _folder: TempDir,
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: ServeConfig,
}

/// The real defaults, but cheap passwords and few connections.
pub(crate) fn config(further: &[&str]) -> ServeConfig {
    let mut args = vec!["test", "--identity-secret", SECRET, "--argon2-memory", "8", "--argon2-passes", "1"];
    args.extend(["--pool-min", "0", "--pool-acquire", "2"]);
    // Jobs wait until a test has them done.
    args.extend(["--work", "false"]);
    args.extend(further);
    Cli::parse_from(args).config
}

impl Origin {
    pub(crate) async fn start(store: Store) -> Self {
        Self::start_with(store, None, &[]).await
    }

    pub(crate) async fn start_with_redis(store: Store) -> Self {
        Self::start_with(store, Some(Redis::start()), &[]).await
    }

    /// On a new store, with further arguments.
    pub(crate) async fn start_with(store: Store, redis: Option<Redis>, further: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database_url = match store {
            Store::Sqlite => format!("sqlite://{}", folder.path().join("test.db").display()),
            Store::Postgres => POSTGRES.create_database(),
            Store::PgBouncer => PGBOUNCER.here(&POSTGRES.create_database()),
        };
        let bounced: &[_] = if store == Store::PgBouncer { &["--pgbouncer"] } else { &[] };
        Self::start_on(database_url, redis, folder, &[bounced, further].concat()).await
    }

    /// On a store that is there, with further arguments.
    pub(crate) async fn start_on(
        database_url: String,
        redis: Option<Redis>,
        folder: TempDir,
        further: &[&str],
    ) -> Self {
        let mut args = vec!["--database-url", &database_url];
        args.extend(further);
        let redis_url = redis.as_ref().map(Redis::url);
        if let Some(url) = &redis_url {
            args.extend(["--redis-url", url]);
        }
        let config = config(&args);
        let app = App::start(&config, "test-origin").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let serve = app::serve(listener, Arc::clone(&app), std::future::pending(), Duration::ZERO);
        let server = tokio::spawn(serve);
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { app, redis, base, client, server, database_url, _folder: folder }
    }

    pub(crate) fn get(&self, path: &str) -> Ask<'_> {
        self.ask(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> Ask<'_> {
        self.ask(Method::POST, path)
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> Ask<'_> {
        Ask { origin: self, method, path: path.into(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Registers `name@example.org` and logs in.
    pub(crate) async fn person(&self, name: &str) -> Person {
        let email = format!("{name}@example.org");
        let registered =
            self.post("/auth/register").json(json!({ "email": email, "password": PASSWORD })).send().await;
        registered.is(StatusCode::CREATED);
        let login = self.login(&email, PASSWORD).await.is(StatusCode::OK);
        let (id, token) = (login.text("/user/id"), login.text("/token"));
        let identity = identity(&id, &token, &["user"]);
        Person { id, email, token, identity }
    }

    pub(crate) async fn login(&self, email: &str, password: &str) -> Answer {
        self.post("/auth/login").json(json!({ "email": email, "password": password })).send().await
    }

    /// Somebody with more than the role of everybody.
    pub(crate) async fn person_with(&self, name: &str, role: &str) -> Person {
        let person = self.person(name).await;
        let roles = Words(vec!["user".into(), role.into()]);
        let id = person.id.parse().unwrap();
        assert!(admin::sql::give_roles(&self.app.database, None, id, &roles, Moment::now()).await.unwrap());
        let identity = identity(&person.id, &person.token, &["user", role]);
        Person { identity, ..person }
    }

    /// Makes an item and gives its id.
    pub(crate) async fn item(&self, owner: &Person, item: Value) -> String {
        self.post("/api/vault/items").by(owner).json(item).send().await.is(StatusCode::CREATED).text("/id")
    }

    /// For programs that share the store.
    pub(crate) fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Takes the store away.
    pub(crate) async fn lose_database(&self, store: Store) {
        match store {
            // A file that is deleted stays readable for those who have it open: closing is the nearest loss.
            Store::Sqlite => self.app.database.close().await,
            Store::Postgres | Store::PgBouncer => POSTGRES.drop_database(&self.database_url),
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A person with both proofs of who they are.
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) token: String,
    pub(crate) identity: String,
}

/// What the edge would sign for a user.
pub(crate) fn identity(user: &str, token: &str, roles: &[&str]) -> String {
    let now = get_current_timestamp();
    let session = Token::parse(token).unwrap().hash().session_id();
    signed(
        json!({ "sub": user, "sid": session, "email": "e", "roles": roles, "iat": now, "exp": now + 30, "iss": "weir" }),
        SECRET,
    )
}

pub(crate) fn signed(claims: Value, secret: &str) -> String {
    encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// A request being put together.
pub(crate) struct Ask<'a> {
    origin: &'a Origin,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Ask<'_> {
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    /// As the edge asks for this person.
    pub(crate) fn by(self, person: &Person) -> Self {
        self.header("x-weir-identity", &person.identity)
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(self, body: Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) async fn send(self) -> Answer {
        let mut request = Request::builder()
            .method(self.method)
            .uri(format!("{}{}", self.origin.base, self.path))
            .body(Full::new(self.body))
            .unwrap();
        *request.headers_mut() = self.headers;
        let (head, body) = self.origin.client.request(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = || String::from_utf8(bytes.to_vec()).ok().filter(|text| !text.is_empty());
        let body = serde_json::from_slice(&bytes).ok().or_else(|| text().map(Value::String));
        let body = body.unwrap_or(Value::Null);
        Answer { status: head.status, headers: head.headers, body }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(self, status: StatusCode) -> Self {
        assert_eq!(self.status, status, "{:#}", self.body);
        self
    }

    /// Refused with this status and code, in the one shape of errors.
    #[track_caller]
    pub(crate) fn refused(self, status: StatusCode, code: &str) -> Self {
        let answer = self.is(status);
        assert_eq!(answer.body["error"]["code"], code, "{:#}", answer.body);
        assert!(answer.body["error"]["message"].is_string());
        answer
    }

    /// The ids of a list, in its order.
    #[track_caller]
    pub(crate) fn ids(&self, list: &str) -> Vec<String> {
        let rows = self.body[list].as_array().unwrap_or_else(|| panic!("{list}: {:#}", self.body));
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The fields that have problems.
    #[track_caller]
    pub(crate) fn fields(&self) -> Vec<&str> {
        let fields = self.body["error"]["fields"].as_object().expect("fields are named");
        fields.keys().map(String::as_str).collect()
    }

    #[track_caller]
    pub(crate) fn text(&self, pointer: &str) -> String {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer}: {:#}", self.body))
            .into()
    }

    #[track_caller]
    pub(crate) fn head(&self, name: impl TryInto<header::HeaderName, Error: Debug>) -> &str {
        self.headers.get(name.try_into().unwrap()).map_or("", |value| value.to_str().unwrap())
    }
}
