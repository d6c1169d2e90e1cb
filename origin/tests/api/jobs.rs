//! Work that requests leave for later, with a real mail server.

use std::{sync::Arc, time::Duration};

use axum::http::{Method, StatusCode};
use clap::Parser;
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle, time::sleep};
use uuid::Uuid;
use weir_origin::{
    accounts::{self, Account, Profile},
    config::JobsConfig,
    database::{Database, Moment, Words},
    fleet::Redis,
    jobs::{
        Job, Kind,
        bell::Bell,
        purges::Purges,
        sql::{self, Ended},
        worker::Worker,
    },
    trace::Trace,
};
use weir_testkit::{Child, READY_WITHIN, Smtp, free_port};

use crate::harness::{Origin, PASSWORD, Person, SECRET, Store};

on_both_stores!(
    a_welcome_is_mailed_and_its_link_proves_the_address,
    a_proof_is_mailed_again_but_not_often,
    a_mail_that_is_refused_is_given_up_and_can_be_revived,
    a_mail_server_that_was_away_gets_its_mail_later,
    mail_without_a_server_is_noted_and_not_sent,
    an_item_is_delivered_once_for_each_time_it_is_scheduled,
    edges_are_told_to_forget_what_was_delivered_sooner_or_later,
    a_worker_that_is_stopped_finishes_what_it_has_and_gives_back_the_rest,
    of_two_who_hold_a_job_only_one_begins_and_ends_it,
    a_job_that_nobody_survives_is_given_up,
    who_waits_for_an_hour_is_woken_by_redis,
    a_worker_without_its_redis_asks_the_table,
    a_killed_worker_loses_nothing_and_repeats_at_most_what_it_had_in_hand,
);

/// Jobs that the killed worker does at once: the bound that the head of `jobs.rs` states.
const IN_HAND: usize = 4;

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    jobs: JobsConfig,
}

/// A worker that runs until it is stopped.
struct Working {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Working {
    fn start(origin: &Origin, smtp_url: Option<&str>, further: &[&str]) -> Self {
        let mut settings = vec!["test", "--job-backoff", "1", "--site-url", "https://weir.example.org/"];
        settings.extend(smtp_url.into_iter().flat_map(|url| ["--smtp-url", url]));
        settings.extend(further);
        let app = &origin.app;
        let (database, measured) = (app.database.clone(), app.metrics.jobs.clone());
        let config = Settings::parse_from(settings).jobs;
        let url = origin.redis.as_ref().map(weir_testkit::Redis::url);
        let bell = url.as_ref().map(|url| Bell::heard_through(url, config.job_poll).unwrap());
        let bell = Arc::new(bell.unwrap_or_default());
        let purges = url.map(|url| Purges::new(Redis::at(&url).unwrap(), "edges:", Duration::from_secs(60)));
        let verifications = app.verifications.clone();
        let worker = Worker::new(database, config, verifications, measured, bell, purges).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        Self { stop: Some(stop), task: tokio::spawn(Arc::clone(&worker).run(stopped, READY_WITHIN)) }
    }

    fn tell_to_stop(&mut self) {
        drop(self.stop.take());
    }

    async fn stop(mut self) {
        self.tell_to_stop();
        self.task.await.unwrap();
    }
}

async fn eventually(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let until = tokio::time::Instant::now() + READY_WITHIN;
    while !ready().await {
        assert!(tokio::time::Instant::now() < until, "not within {READY_WITHIN:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn waiting(origin: &Origin) -> i64 {
    sql::depth(&origin.app.database).await.unwrap().waiting
}

/// One value of the jobs table.
async fn ask<T>(origin: &Origin, query: &'static str) -> Option<T>
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    match &origin.app.database {
        Database::Sqlite(pool) => sqlx::query_scalar(query).fetch_optional(pool).await.unwrap(),
        Database::Postgres(pool) => sqlx::query_scalar(query).fetch_optional(pool).await.unwrap(),
    }
}

async fn run(origin: &Origin, statement: &'static str) {
    match &origin.app.database {
        Database::Sqlite(pool) => drop(sqlx::query(statement).execute(pool).await.unwrap()),
        Database::Postgres(pool) => drop(sqlx::query(statement).execute(pool).await.unwrap()),
    }
}

/// Queues welcomes to `0@example.org` and so on, as registrations do.
async fn register_many(origin: &Origin, count: usize) {
    for n in 0..count {
        let account = Account {
            id: Uuid::now_v7(),
            email: format!("{n}@example.org"),
            roles: Words(vec!["user".into()]),
            email_verified_at: None,
            created_at: Moment::now(),
            profile: Profile::default(),
        };
        let welcome = Job::new(Kind::Welcome, account.id, &Trace::begin(), account.created_at);
        accounts::sql::insert(&origin.app.database, &account, "no hash", &welcome).await.unwrap();
    }
}

/// The token of the link in a mail, whose long lines are quoted-printable (RFC 2045 §6.7).
fn token(mail: &str) -> String {
    let text = mail.replace("\r\n", "\n").replace("=\n", "").replace("=3D", "=");
    let link = text.split_once("https://weir.example.org/verify-email?token=");
    link.unwrap_or_else(|| panic!("{text}")).1.split_whitespace().next().unwrap().to_owned()
}

async fn me(origin: &Origin, person: &Person) -> Value {
    origin.get("/auth/me").by(person).send().await.is(StatusCode::OK).body
}

async fn a_welcome_is_mailed_and_its_link_proves_the_address(store: Store) {
    let (origin, smtp) = (Origin::start(store).await, Smtp::start());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ada = origin
        .post("/auth/register")
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))
        .json(json!({ "email": "ada@example.org", "password": PASSWORD, "displayName": "Win at https://evil.example" }))
        .send()
        .await
        .is(StatusCode::CREATED);
    assert_eq!(ask::<String>(&origin, "SELECT trace_id FROM jobs").await.as_deref(), Some(trace));
    assert_eq!(waiting(&origin).await, 1);
    let taken = origin
        .post("/auth/register")
        .json(json!({ "email": "ada@example.org", "password": PASSWORD }))
        .send()
        .await;
    taken.refused(StatusCode::CONFLICT, "email_taken");
    assert_eq!(waiting(&origin).await, 1, "who is not registered is not welcomed");

    let worker = Working::start(&origin, Some(&smtp.url()), &[]);
    eventually("the mail", async || smtp.mails().len() == 1).await;
    eventually("it is noted", async || waiting(&origin).await == 0).await;
    let mail = smtp.mails().remove(0);
    assert!(mail.contains("X-RcptTo: ada@example.org") && mail.contains("Subject: Welcome"), "{mail}");
    assert!(!mail.contains("evil"), "whoever registers an address does not write to it: {mail}");
    let proof = json!({ "token": token(&mail) });
    origin.post("/auth/verify-email").json(proof).send().await.is(StatusCode::NO_CONTENT);
    let login = origin.login("ada@example.org", PASSWORD).await.is(StatusCode::OK);
    assert!(login.body["user"]["emailVerifiedAt"].is_string(), "{:#}", ada.body);

    let scraped = origin.get("/metrics").send().await.is(StatusCode::OK);
    let text = scraped.body.as_str().unwrap();
    for line in [
        r#"weir_origin_jobs{state="waiting"} 0"#,
        r#"weir_origin_jobs{state="dead"} 0"#,
        "weir_origin_jobs_oldest_seconds 0",
        r#"weir_origin_jobs_ended_total{kind="welcome",outcome="done"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    worker.stop().await;
}

async fn a_proof_is_mailed_again_but_not_often(store: Store) {
    let (origin, smtp) = (Origin::start(store).await, Smtp::start());
    let ada = origin.person("ada").await;
    let again = async || origin.post("/auth/verification").by(&ada).send().await;
    let refused = again().await.refused(StatusCode::TOO_MANY_REQUESTS, "too_many");
    assert_eq!(refused.head("retry-after"), "300", "the welcome had one");
    run(&origin, "UPDATE users SET verification_asked_at = NULL").await;
    again().await.is(StatusCode::ACCEPTED);
    again().await.refused(StatusCode::TOO_MANY_REQUESTS, "too_many");
    run(&origin, "UPDATE users SET verification_asked_at = NULL").await;
    again().await.refused(StatusCode::TOO_MANY_REQUESTS, "too_many");
    assert_eq!(
        waiting(&origin).await,
        2,
        "one of a kind waits for each account, whether anybody works or not"
    );

    let worker = Working::start(&origin, Some(&smtp.url()), &[]);
    eventually("both mails", async || smtp.mails().len() == 2).await;
    let mails = smtp.mails();
    let mail = mails.iter().find(|mail| mail.contains("Subject: Your address")).unwrap();
    let proof = json!({ "token": token(mail) });
    origin.post("/auth/verify-email").json(proof).send().await.is(StatusCode::NO_CONTENT);
    assert!(me(&origin, &ada).await["emailVerifiedAt"].is_string());
    again().await.is(StatusCode::ACCEPTED);
    eventually("all is noted", async || waiting(&origin).await == 0).await;
    assert_eq!(smtp.mails().len(), 2, "what is proven is not asked for");
    worker.stop().await;
    origin.post("/auth/verification").send().await.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
}

async fn a_mail_that_is_refused_is_given_up_and_can_be_revived(store: Store) {
    let (origin, smtp) = (Origin::start(store).await, Smtp::start_refusing());
    register_many(&origin, 2).await;
    let worker = Working::start(&origin, Some(&smtp.url()), &[]);
    let dead = async || sql::dead(&origin.app.database, 100).await.unwrap();
    eventually("both are given up", async || dead().await.len() == 2).await;
    worker.stop().await;
    for job in dead().await {
        assert_eq!((job.kind.as_str(), job.tries), ("welcome", 1), "5xx is final (RFC 5321 §4.2.1)");
        assert!(job.last_error.unwrap().contains("552"));
    }
    assert_eq!(waiting(&origin).await, 0);

    let (root, ada) = (origin.person_with("root", "admin").await, origin.person("ada").await);
    let list =
        async |query: &str, by: &Person| origin.get(&format!("/admin/jobs{query}")).by(by).send().await;
    let all = list("", &root).await.is(StatusCode::OK);
    assert!(all.body["jobs"][0]["lastError"].as_str().unwrap().contains("552"), "{:#}", all.body);
    let first = list("?limit=1", &root).await;
    let rest = list(&format!("?cursor={}", first.text("/nextCursor")), &root).await;
    assert_eq!([first.ids("jobs"), rest.ids("jobs")].concat(), all.ids("jobs"));
    list("", &ada).await.refused(StatusCode::FORBIDDEN, "forbidden");
    run(&origin, "DELETE FROM jobs WHERE dead_at IS NULL").await;

    assert_eq!(sql::revive(&origin.app.database, Moment::now()).await.unwrap(), 2);
    assert!(dead().await.is_empty());
    let kind = Smtp::start();
    let worker = Working::start(&origin, Some(&kind.url()), &[]);
    eventually("both mails", async || kind.mails().len() == 2).await;
    worker.stop().await;
    assert_eq!(waiting(&origin).await, 0);
}

async fn a_mail_server_that_was_away_gets_its_mail_later(store: Store) {
    let origin = Origin::start(store).await;
    register_many(&origin, 1).await;
    let port = free_port();
    let worker = Working::start(&origin, Some(&format!("smtp://127.0.0.1:{port}")), &[]);
    eventually("a try failed", async || {
        ask::<Option<String>>(&origin, "SELECT last_error FROM jobs").await.flatten().is_some()
    })
    .await;
    assert_eq!(waiting(&origin).await, 1);
    let smtp = Smtp::start_on(port);
    eventually("the mail", async || smtp.mails().len() == 1).await;
    worker.stop().await;
    assert_eq!(waiting(&origin).await, 0);
}

async fn mail_without_a_server_is_noted_and_not_sent(store: Store) {
    let origin = Origin::start(store).await;
    register_many(&origin, 40).await;
    let worker = Working::start(&origin, None, &["--job-batch", "7"]);
    eventually("all are noted", async || waiting(&origin).await == 0).await;
    worker.stop().await;
    let scraped = origin.get("/metrics").send().await.is(StatusCode::OK);
    let line = r#"weir_origin_jobs_ended_total{kind="welcome",outcome="unsent"} 40"#;
    assert!(scraped.body.as_str().unwrap().contains(line), "{:#}", scraped.body);
}

async fn an_item_is_delivered_once_for_each_time_it_is_scheduled(store: Store) {
    let (origin, smtp) = (Origin::start(store).await, Smtp::start());
    let ada = origin.person("ada").await;
    let letter = |at: &str| json!({ "type": "letter", "title": "To Grace", "scheduledDelivery": at });
    let due = origin.item(&ada, letter("2020-01-01T00:00:00Z")).await;
    let later = origin.item(&ada, letter("2100-01-01T00:00:00Z")).await;
    let never = origin.item(&ada, json!({ "type": "letter", "title": "Kept" })).await;
    let proof = origin.app.verifications.seal(ada.id.parse().unwrap(), &ada.email, Moment::now());
    let proven = origin.post("/auth/verify-email").json(json!({ "token": proof })).send().await;
    proven.is(StatusCode::NO_CONTENT);
    // Of somebody who has registered an address that may be anybody's.
    let stranger = origin.person("stranger").await;
    let silent = origin.item(&stranger, letter("2020-01-01T00:00:00Z")).await;
    let path = |id: &str| format!("/api/vault/items/{id}");
    let get = async |id: &str| origin.get(&path(id)).by(&ada).send().await.is(StatusCode::OK);
    assert!(get(&due).await.body["deliveredAt"].is_null());

    let workers = [(); 2].map(|()| Working::start(&origin, Some(&smtp.url()), &[]));
    let deliveries = || smtp.mails().iter().filter(|mail| mail.contains("Subject: A delivery")).count();
    eventually("the mail about it", async || deliveries() == 1).await;
    let delivered = get(&due).await;
    assert!(delivered.body["deliveredAt"].is_string(), "{:#}", delivered.body);
    assert_eq!(delivered.head("etag"), "\"v2\"", "it is another version");
    assert!(!smtp.mails().iter().any(|mail| mail.contains("To Grace")), "what is in a vault stays there");

    // A change of something else is none of the time.
    let patch =
        async |change: Value| origin.ask(Method::PATCH, &path(&due)).by(&ada).json(change).send().await;
    let patched = patch(json!({ "title": "To Grace H." })).await.is(StatusCode::OK);
    assert_eq!(patched.body["deliveredAt"], delivered.body["deliveredAt"]);
    let patched = patch(json!({ "scheduledDelivery": "2021-01-01T00:00:00Z" })).await.is(StatusCode::OK);
    assert!(patched.body["deliveredAt"].is_null());
    eventually("the second mail", async || deliveries() == 2).await;
    eventually("all is noted", async || waiting(&origin).await == 0).await;
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(
        deliveries(),
        2,
        "two workers, and still once each; and none to an address that is not proven"
    );
    let silent = origin.get(&path(&silent)).by(&stranger).send().await.is(StatusCode::OK);
    assert!(silent.body["deliveredAt"].is_string());
    for id in [&later, &never] {
        assert!(get(id).await.body["deliveredAt"].is_null());
    }
}

async fn edges_are_told_to_forget_what_was_delivered_sooner_or_later(store: Store) {
    let origin = Origin::start_with_redis(store).await;
    let redis = origin.redis.as_ref().unwrap();
    let (ada, joan) = (origin.person("ada").await, origin.person("joan").await);
    let letter = json!({ "type": "letter", "title": "t", "scheduledDelivery": "2020-01-01T00:00:00Z" });
    let told = |person: &Person| {
        let words = redis.ask(&["XRANGE", "edges:purges", "-", "+"]);
        words.matches(&format!("h\nnvault:{}", person.id)).count()
    };
    // The words of a worker that died right after it had delivered.
    origin.item(&joan, letter.clone()).await;
    let (database, now) = (&origin.app.database, Moment::now());
    let delivered = sql::deliver(database, now, 9, &Trace::begin(), Some(now)).await.unwrap();
    assert_eq!((delivered.items, delivered.purges.len(), told(&joan)), (1, 1, 0));

    for _ in 0..2 {
        origin.item(&ada, letter.clone()).await;
    }
    let worker = Working::start(&origin, None, &[]);
    eventually("both are told", async || told(&ada) == 1 && told(&joan) == 1).await;
    eventually("it is noted", async || waiting(&origin).await == 0).await;
    worker.stop().await;
    let marks = redis.ask(&["EXISTS", &format!("wrote:{}", ada.id)]);
    assert_eq!(marks, "1", "nobody reads an older list from a replica");

    origin.item(&ada, letter).await;
    redis.child().signal("STOP");
    let worker = Working::start(&origin, None, &[]);
    eventually("Redis does not hear", async || {
        let failed = "SELECT last_error FROM jobs WHERE kind = 'purge'";
        ask::<Option<String>>(&origin, failed).await.flatten().is_some()
    })
    .await;
    redis.child().signal("CONT");
    eventually("it is told again", async || told(&ada) >= 2).await;
    worker.stop().await;
}

async fn a_worker_that_is_stopped_finishes_what_it_has_and_gives_back_the_rest(store: Store) {
    let (origin, smtp) = (Origin::start(store).await, Smtp::start());
    register_many(&origin, 5).await;
    smtp.child().signal("STOP");
    let mut worker = Working::start(&origin, Some(&smtp.url()), &["--job-concurrency", "1"]);
    let begun = "SELECT count(*) FROM jobs WHERE tries = 1";
    eventually("one is begun", async || ask::<i64>(&origin, begun).await == Some(1)).await;
    worker.tell_to_stop();
    let database = &origin.app.database;
    eventually("the rest is given back", async || {
        let taken = sql::take(database, Moment::now(), Moment::now(), 100).await.unwrap();
        taken.len() == 4 && taken.iter().all(|job| job.tries == 0)
    })
    .await;
    smtp.child().signal("CONT");
    worker.stop().await;
    assert_eq!(smtp.mails().len(), 1, "what was in hand is finished");
    assert_eq!(waiting(&origin).await, 4);
}

async fn of_two_who_hold_a_job_only_one_begins_and_ends_it(store: Store) {
    let origin = Origin::start(store).await;
    register_many(&origin, 1).await;
    let database = &origin.app.database;
    let now = Moment::now();
    let (lease_ends, much_later) = (now.after(Duration::from_secs(60)), now.after(Duration::from_secs(120)));
    let take =
        async |now: Moment, lease_ends: Moment| sql::take(database, now, lease_ends, 10).await.unwrap();
    let first = take(now, lease_ends).await.remove(0);
    assert!(take(now, lease_ends).await.is_empty(), "it is somebody's");
    let second = take(lease_ends, much_later).await.remove(0);
    assert!(sql::begin(database, &second, much_later).await.unwrap());
    assert!(!sql::begin(database, &first, much_later).await.unwrap(), "the other has begun");
    let third = take(much_later, much_later.after(Duration::from_secs(60))).await.remove(0);
    assert_eq!(third.tries, 1);
    assert!(sql::begin(database, &third, much_later).await.unwrap());
    assert!(!sql::end(database, third.id, 1, &Ended::Done).await.unwrap(), "not the first try's any more");
    assert!(sql::end(database, third.id, 2, &Ended::Done).await.unwrap());
    assert_eq!(waiting(&origin).await, 0);
}

async fn a_job_that_nobody_survives_is_given_up(store: Store) {
    let (origin, smtp) = (Origin::start(store).await, Smtp::start());
    register_many(&origin, 1).await;
    // As if three workers had died of it.
    run(&origin, "UPDATE jobs SET tries = 3").await;
    let worker = Working::start(&origin, Some(&smtp.url()), &["--job-tries", "3"]);
    let dead = async || sql::dead(&origin.app.database, 1).await.unwrap();
    eventually("it is given up", async || dead().await.len() == 1).await;
    worker.stop().await;
    assert_eq!(dead().await[0].last_error.as_deref(), Some("never ended"));
    assert!(smtp.mails().is_empty());
}

async fn who_waits_for_an_hour_is_woken_by_redis(store: Store) {
    let (origin, smtp) = (Origin::start_with_redis(store).await, Smtp::start());
    let worker = Working::start(&origin, Some(&smtp.url()), &["--job-poll", "3600"]);
    for (n, name) in ["ada", "grace", "joan"].into_iter().enumerate() {
        origin.person(name).await;
        eventually("the mail", async || smtp.mails().len() == n + 1).await;
    }
    worker.stop().await;
}

async fn a_worker_without_its_redis_asks_the_table(store: Store) {
    let (mut origin, smtp) = (Origin::start_with_redis(store).await, Smtp::start());
    let worker = Working::start(&origin, Some(&smtp.url()), &[]);
    drop(origin.redis.take());
    register_many(&origin, 3).await;
    eventually("the mails", async || smtp.mails().len() == 3).await;
    worker.stop().await;
}

async fn a_killed_worker_loses_nothing_and_repeats_at_most_what_it_had_in_hand(store: Store) {
    const MAILS: usize = 300;
    let (origin, smtp) = (Origin::start(store).await, Smtp::start());
    register_many(&origin, MAILS).await;
    let start = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weir-origin"));
        command.args(["worker", "--listen", "127.0.0.1:0", "--job-lease", "10", "--smtp-url", &smtp.url()]);
        command.args(["--job-concurrency", &IN_HAND.to_string(), "--database-url", origin.database_url()]);
        command.args((store == Store::PgBouncer).then_some("--pgbouncer"));
        command.env("WEIR_IDENTITY_SECRET", SECRET).env("WEIR_POOL_MIN", "0");
        Child::start(command, tempfile::tempdir().unwrap(), "KILL", "cargo").unwrap()
    };
    let mut kills = 0;
    for sent in [MAILS / 20, MAILS / 5] {
        let mut worker = start();
        eventually("some mails", async || smtp.mails().len() >= sent).await;
        worker.signal("KILL");
        worker.wait(READY_WITHIN).expect("nobody survives this");
        assert!(waiting(&origin).await > 0, "killed in the middle");
        kills += 1;
    }
    let _worker = start();
    eventually("all mails", async || waiting(&origin).await == 0).await;

    let mails = smtp.mails();
    let line =
        |mail: &str, name: &str| mail.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let mut readers: Vec<_> = mails.iter().map(|mail| line(mail, "X-RcptTo: ")).collect();
    let mut ids: Vec<_> = mails.iter().map(|mail| line(mail, "Message-ID: ")).collect();
    for names in [&mut readers, &mut ids] {
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), MAILS, "nothing is lost, and a mail that comes twice has one name");
    }
    let twice = mails.len() - MAILS;
    assert!(twice <= kills * IN_HAND, "{twice} mails came twice");
    assert_eq!(sql::depth(&origin.app.database).await.unwrap().dead, 0);
}
