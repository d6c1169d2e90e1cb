//! What Postgres does for each endpoint: how many statements, by which indexes, and how many rows it looks at.
//!
//! The plans are those of the statements that really ran, with their real parameters: `auto_explain` writes them to the server's
//! log in the form of `EXPLAIN (ANALYZE, FORMAT JSON)`.

use axum::http::Method;
use clap::Parser;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use weir_origin::{
    config::{DatabaseConfig, PasswordConfig},
    database::{Database, Moment},
    jobs::{self, sql::Ended},
    seed::{self, Volume},
    trace::Trace,
};
use weir_testkit::{READY_WITHIN, wait_until};

use crate::harness::{Origin, PASSWORD, POSTGRES, Person, identity};

/// Tables that are far too large to be read whole.
const VOLUME: Volume =
    Volume { users: 5_000, items: 25_000, notes: 15_000, posts: 6_000, likes: 20_000, sessions: 10_000 };
/// One row of so many is the caller's: some hundreds of each kind, many pages.
const CALLERS: u64 = 40;
/// Rows that may be looked at for each row of an answer: itself, its index entry, its author, and one to spare.
const ROWS_FOR_EACH: f64 = 4.0;
/// Rows that any statement may look at beside: the caller's own, and the one that says whether there is a next page.
const ROWS_BESIDE: f64 = 4.0;

/// A request, the statements it may run, and the indexes they must use; where several serve as well, none is named.
struct Case {
    method: Method,
    path: &'static str,
    body: Option<Value>,
    statements: i64,
    indexes: &'static [&'static str],
}

fn get(path: &'static str, statements: i64, indexes: &'static [&'static str]) -> Case {
    Case { method: Method::GET, path, body: None, statements, indexes }
}

fn with(
    method: Method,
    path: &'static str,
    body: Value,
    statements: i64,
    indexes: &'static [&'static str],
) -> Case {
    Case { method, path, body: Some(body), statements, indexes }
}

/// Every read of O10 and of the lists with each filter, and the writes. `{item}` and the like are the caller's.
fn cases() -> Vec<Case> {
    // Of somebody without too many sessions: the caller's first log-in would end hundreds.
    let login = json!({ "email": "user8@example.org", "password": PASSWORD });
    let (note, item) = (json!({ "title": "One" }), json!({ "type": "memory", "title": "One" }));
    let batch = json!({ "items": [item, item, item] });
    let ids = json!({ "ids": ["{note}", "{item}"], "isArchived": true });
    vec![
        get("/health", 1, &[]),
        // A user by e-mail; the new session; whether there are too many; the account with its profile.
        with(
            Method::POST,
            "/auth/login",
            login,
            4,
            &["users_email_key", "users_pkey", "sessions_of_user", "profiles_pkey"],
        ),
        get("/auth/session", 1, &["sessions_pkey", "users_pkey"]),
        get("/auth/me", 1, &["users_pkey", "profiles_pkey"]),
        get("/auth/sessions", 1, &["sessions_of_user"]),
        with(Method::PUT, "/users/profile", json!({ "displayName": "x" }), 1, &["profiles_pkey"]),
        get("/api/vault/items", 1, &["items_of_user"]),
        get("/api/vault/items?limit=100", 1, &["items_of_user"]),
        get("/api/vault/items?type=letter", 1, &["items_by_type"]),
        get("/api/vault/items?emotionCategory=love", 1, &["items_by_emotion"]),
        get("/api/vault/items?importanceScore=50", 1, &["items_by_importance"]),
        get("/api/vault/items?scheduled=true", 1, &["items_scheduled"]),
        get("/api/vault/items?scheduled=false", 1, &["items_of_user"]),
        get("/api/vault/items?keyword=year-1999", 1, &["items_by_keyword"]),
        get("/api/vault/items/{item}", 1, &[]),
        with(Method::POST, "/api/vault/items", item.clone(), 1, &[]),
        with(Method::POST, "/api/vault/items/batch", batch, 1, &[]),
        with(Method::PATCH, "/api/vault/items/{item}", json!({ "title": "Two" }), 2, &[]),
        get("/api/notes", 1, &["notes_of_user"]),
        get("/api/notes?archived=true", 1, &["notes_of_user"]),
        get("/api/notes?trashed=true", 1, &["notes_of_user"]),
        get("/api/notes?pinned=true", 1, &["notes_pinned"]),
        get("/api/notes?favourite=true", 1, &["notes_favourite"]),
        get("/api/notes/{note}", 1, &[]),
        with(Method::POST, "/api/notes", note, 1, &[]),
        with(Method::PATCH, "/api/notes", ids, 1, &[]),
        get("/posts", 1, &["posts_pkey", "profiles_pkey"]),
        get("/posts?limit=100", 1, &["posts_pkey"]),
        get("/posts?author={me}", 1, &["posts_of_author"]),
        get("/posts/{post}", 1, &["posts_pkey", "profiles_pkey"]),
        with(Method::PUT, "/posts/{post}/like", json!({}), 1, &["posts_pkey"]),
        with(Method::PATCH, "/posts/{post}", json!({ "title": "Two" }), 2, &["posts_pkey"]),
        // Whether the caller still administers, and the list.
        get("/admin/users", 2, &["users_pkey", "profiles_pkey"]),
        get("/admin/users?role=admin", 2, &["users_with_more_roles"]),
        get("/admin/jobs", 2, &["jobs_dead"]),
        get("/admin/users?email=user9@example.org", 2, &["users_email_key"]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_uses_its_index_and_reads_little_more_than_it_returns() {
    let url = POSTGRES.create_database();
    let name = url.rsplit_once('/').unwrap().1.to_owned();
    fill(&url).await;
    let postgres = PgPool::connect(&POSTGRES.here("x/postgres")).await.unwrap();
    run(&postgres, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await;
    for setting in ["log_min_duration = 0", "log_analyze = on", "log_timing = off", "log_format = json"] {
        run(&postgres, &format!("ALTER DATABASE {name} SET auto_explain.{setting}")).await;
    }
    let mut wrong = Vec::new();
    let owned = [
        ("items", "user_id", "id"),
        ("notes", "user_id", "id"),
        ("posts", "author_id", "id"),
        ("sessions", "user_id", "token_hash"),
    ];
    let ours = PgPool::connect(&url).await.unwrap();
    for (table, owner, key) in owned {
        let give = format!(
            "UPDATE {table} SET {owner} = (SELECT id FROM users WHERE email = 'user7@example.org')
             WHERE hashtext({key}::text) % {CALLERS} = 0"
        );
        run(&ours, &give).await;
    }
    run(&ours, "VACUUM (ANALYZE)").await;
    let origin = Origin::start_on(url.clone(), None, tempfile::tempdir().unwrap(), &[]).await;
    let caller = caller(&origin).await;
    wrong.extend(judge_work(&origin, &ours, &name).await);
    for case in cases() {
        let problems = judge(&origin, &postgres, &name, &caller, &case).await;
        wrong.extend(problems.into_iter().map(|p| format!("{} {}: {p}", case.method, case.path)));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    database: DatabaseConfig,
    #[command(flatten)]
    passwords: PasswordConfig,
}

async fn fill(url: &str) {
    let args = ["test", "--database-url", url, "--argon2-memory", "8", "--argon2-passes", "1"];
    let settings = Settings::parse_from(args);
    let database = Database::open(&settings.database).await.unwrap();
    seed::seed(&database, &settings.passwords, &VOLUME, Moment::now()).await.unwrap();
    database.close().await;
}

/// An administrator among the demo users, so that one caller may ask everything.
async fn caller(origin: &Origin) -> Person {
    let email = "user7@example.org";
    let login = origin.login(email, PASSWORD).await;
    let (id, token) = (login.text("/user/id"), login.text("/token"));
    let roles = weir_origin::database::Words(vec!["user".into(), "admin".into()]);
    let user = id.parse().unwrap();
    weir_origin::admin::sql::give_roles(&origin.app.database, None, user, &roles, Moment::now())
        .await
        .unwrap();
    let identity = identity(&id, &token, &["user", "admin"]);
    Person { id, email: email.into(), token, identity }
}

/// Asks, and says what is wrong with what Postgres did.
async fn judge(origin: &Origin, postgres: &PgPool, name: &str, caller: &Person, case: &Case) -> Vec<String> {
    let first = async |path: &str, list: &str| origin.get(path).by(caller).send().await.ids(list)[0].clone();
    let names = [
        ("{me}", caller.id.clone()),
        ("{item}", first("/api/vault/items", "items").await),
        ("{note}", first("/api/notes", "notes").await),
        ("{post}", first(&format!("/posts?author={}", caller.id), "posts").await),
    ];
    let fill =
        |text: &str| names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));

    let request = || {
        let mut ask = origin.ask(case.method.clone(), &fill(case.path)).by(caller);
        if case.path == "/auth/session" {
            ask = origin.get(case.path).bearer(&caller.token);
        }
        match &case.body {
            Some(body) => ask.json(serde_json::from_str(&fill(&body.to_string())).unwrap()),
            None => ask,
        }
    };
    // After five executions Postgres may take a plan for every parameter, and this caller is not like the others.
    for _ in 0..if case.method == Method::GET { 6 } else { 0 } {
        request().send().await;
    }
    let before = POSTGRES.child().output().len();
    // Of this database alone; asked from another one, so that asking is not counted.
    let of_database = format!("dbid = (SELECT oid FROM pg_database WHERE datname = '{name}')");
    run(
        postgres,
        &format!("SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = '{name}'"),
    )
    .await;
    let answer = request().send().await;
    let mut wrong = Vec::new();
    if !answer.status.is_success() {
        wrong.push(format!("{}: {}", answer.status, answer.body));
    }
    let count = format!(
        "SELECT COALESCE(sum(calls), 0)::int8 FROM pg_stat_statements
         WHERE {of_database} AND query NOT LIKE 'DELETE FROM sessions WHERE expires_at%'
         AND query NOT LIKE 'DELETE FROM idempotency_keys%' AND query NOT LIKE 'DELETE FROM jobs WHERE dead_at%'"
    );
    let statements: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(postgres).await.unwrap();
    if statements != case.statements {
        wrong.push(format!("{statements} statements, not {}", case.statements));
    }

    let mut plans = Vec::new();
    let enough = usize::try_from(case.statements).unwrap();
    wait_until(READY_WITHIN, || {
        plans = plans_of(&POSTGRES.child().output()[before..], name);
        plans.len() >= enough
    });
    let mut indexes = Vec::new();
    for plan in &plans {
        let text = plan["Query Text"].as_str().unwrap();
        let mut read = 0.0;
        look(&plan["Plan"], &mut |node| {
            let number = |key: &str| node[key].as_f64().unwrap_or(0.0);
            let kind = node["Node Type"].as_str().unwrap();
            if kind == "Seq Scan" && text != "SELECT 1 FROM users LIMIT 1" {
                wrong.push(format!("reads {} whole: {text}", node["Relation Name"]));
            }
            if kind.contains("Scan") {
                let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
                read += (number("Actual Rows") + removed) * number("Actual Loops");
            }
            indexes.extend(node["Index Name"].as_str().map(str::to_owned));
        });
        let root = &plan["Plan"];
        let written = root["Plans"][0]["Actual Rows"].as_f64().unwrap_or(0.0);
        let returned = root["Actual Rows"].as_f64().unwrap().max(if root["Node Type"] == "ModifyTable" {
            written
        } else {
            0.0
        });
        if read > returned * ROWS_FOR_EACH + ROWS_BESIDE {
            wrong.push(format!("reads {read} rows for {returned}: {text}\n{root}"));
        }
    }
    for index in case.indexes {
        if !indexes.iter().any(|used| used == index) {
            wrong.push(format!("does not use {index} but {indexes:?}"));
        }
    }
    wrong
}

/// Has a worker's statements run beside many jobs and items that are not due, and says what is wrong with what Postgres did.
async fn judge_work(origin: &Origin, ours: &PgPool, name: &str) -> Vec<String> {
    for statement in [
        "INSERT INTO jobs (id, kind, user_id, created_at, due_at, tries, dead_at)
         SELECT gen_random_uuid(), 'welcome', id, now(), now() + '1 day', 0, CASE WHEN random() < 0.5 THEN now() END FROM users",
        "UPDATE items SET scheduled_delivery = now() WHERE id IN
         (SELECT id FROM items WHERE scheduled_delivery IS NOT NULL LIMIT 10)",
        "ANALYZE jobs, items",
    ] {
        run(ours, statement).await;
    }
    let before = POSTGRES.child().output().len();
    let (database, now) = (&origin.app.database, Moment::now());
    let delivered = jobs::sql::deliver(database, now, 32, &Trace::begin(), None).await.unwrap();
    assert_eq!((delivered.items, delivered.purges.len()), (10, 0), "nobody can tell the edges");
    let taken = jobs::sql::take(database, now, now, 32).await.unwrap();
    assert_eq!(taken.len(), 10, "their mails");
    assert!(jobs::sql::begin(database, &taken[0], now).await.unwrap());
    let to = jobs::sql::recipient(database, taken[0].user_id, taken[0].item_id).await.unwrap();
    assert!(to.is_some());
    assert!(jobs::sql::end(database, taken[0].id, 1, &Ended::Done).await.unwrap());
    jobs::sql::dead(database, 10).await.unwrap();

    let mut plans = Vec::new();
    wait_until(READY_WITHIN, || {
        plans = plans_of(&POSTGRES.child().output()[before..], name);
        plans.len() >= 7
    });
    let (mut wrong, mut indexes) = (Vec::new(), Vec::new());
    for plan in &plans {
        look(&plan["Plan"], &mut |node| {
            if node["Node Type"] == "Seq Scan" {
                wrong.push(format!("reads {} whole: {}", node["Relation Name"], plan["Query Text"]));
            }
            indexes.extend(node["Index Name"].as_str().map(str::to_owned));
        });
    }
    for index in ["items_to_deliver", "jobs_due", "jobs_pkey", "users_pkey", "items_pkey", "jobs_dead"] {
        if !indexes.iter().any(|used| used == index) {
            wrong.push(format!("does not use {index} but {indexes:?}"));
        }
    }
    wrong
}

fn look(node: &Value, see: &mut impl FnMut(&Value)) {
    see(node);
    for below in node["Plans"].as_array().into_iter().flatten() {
        look(below, see);
    }
}

/// The plans in a piece of the log: JSON, whose lines begin with a tab, after a line that ends in `plan:`.
fn plans_of(log: &str, database: &str) -> Vec<Value> {
    let ours = format!("<{database}> LOG:  duration:");
    let mut lines = log.lines().peekable();
    let mut plans = Vec::new();
    while let Some(line) = lines.next() {
        if !(line.starts_with(&ours) && line.ends_with("plan:")) {
            continue;
        }
        let mut json = String::new();
        while let Some(line) = lines.next_if(|line| line.starts_with('\t')) {
            json.push_str(line);
        }
        // The last one may still be being written.
        plans.extend(serde_json::from_str::<Value>(&json).ok());
    }
    let sweep = |plan: &Value| {
        plan["Query Text"].as_str().is_some_and(|text| {
            text.starts_with("DELETE FROM sessions WHERE expires_at")
                || text.starts_with("DELETE FROM idempotency_keys")
                || text.starts_with("DELETE FROM jobs WHERE dead_at")
        })
    };
    plans.retain(|plan| !sweep(plan));
    plans
}

async fn run(postgres: &PgPool, sql: &str) {
    sqlx::query(AssertSqlSafe(sql)).execute(postgres).await.unwrap();
}
