//! The program as an operator runs it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use weir_testkit::{Child, Postgres, READY_WITHIN, Smtp, wait_until};

const SECRET: &str = "a test's secret of more than thirty-two bytes";

fn program(database_url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-origin"));
    command.args(arguments).env("WEIR_DATABASE_URL", database_url).env("WEIR_IDENTITY_SECRET", SECRET);
    command.env("WEIR_ARGON2_MEMORY", "8").env("WEIR_ARGON2_PASSES", "1").env("WEIR_POOL_MIN", "1");
    command
}

fn start(database_url: &str, arguments: &[&str]) -> Child {
    let command = program(database_url, arguments);
    Child::start(command, tempfile::tempdir().unwrap(), "KILL", "cargo").unwrap()
}

/// Waits for the line that scripts wait for, and gives its address.
fn address(origin: Child) -> (Child, String) {
    let origin = origin.ready(READY_WITHIN, |origin| origin.output().contains("listening on ")).unwrap();
    let output = origin.output();
    let line = output.lines().find_map(|line| line.strip_prefix("listening on ")).unwrap();
    (origin, line.to_owned())
}

fn ask(address: &str, request: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(READY_WITHIN)).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn login(address: &str) -> String {
    let body = r#"{"email":"user3@example.org","password":"correct horse battery staple"}"#;
    let length = body.len();
    ask(
        address,
        &format!(
            "POST /auth/login HTTP/1.1\r\nHost: x\r\nX-Request-ID: r-1\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ),
    )
}

fn sqlite(folder: &Path) -> String {
    format!("sqlite://{}", folder.join("test.db").display())
}

/// Three at once on an empty store, seeded, asked, stopped.
fn three_origins_share(database_url: &str) {
    let starting = ["a", "b", "c"]
        .map(|name| start(database_url, &["serve", "--listen", "127.0.0.1:0", "--name", name]));
    let origins = starting.map(address);
    for _ in 0..2 {
        let seeded = program(
            database_url,
            &["seed", "--users", "5", "--items", "1234", "--likes", "99", "--sessions", "7"],
        )
        .output()
        .unwrap();
        assert!(seeded.status.success(), "{}", String::from_utf8_lossy(&seeded.stderr));
    }
    for ((mut origin, address), name) in origins.into_iter().zip(["a", "b", "c"]) {
        let answer = login(&address);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(&format!("x-origin: {name}\r\n")), "{answer}");
        origin.signal("TERM");
        let status = origin.wait(Duration::from_secs(10)).expect("it stops when asked");
        assert!(status.success(), "{status}: {}", origin.output());
        let record = origin.output().lines().find(|line| line.contains("/auth/login")).unwrap().to_owned();
        assert!(record.starts_with('{') && record.contains(r#""request_id":"r-1""#), "{record}");
        assert!(!origin.output().contains("battery"), "no password in a log");
    }
}

#[test]
fn three_origins_start_at_once_on_one_new_sqlite_file() {
    let folder = tempfile::tempdir().unwrap();
    three_origins_share(&sqlite(folder.path()));
}

#[test]
fn three_origins_start_at_once_on_one_new_postgres_database() {
    let postgres = Postgres::start();
    three_origins_share(&postgres.create_database());
}

#[test]
fn pools_that_ask_for_more_than_the_database_has_are_warned_of() {
    let postgres = Postgres::start();
    let url = postgres.create_database();
    let output = |instances: &str| {
        let flags = ["serve", "--listen", "127.0.0.1:0", "--pool-max", "20", "--instances", instances];
        address(start(&url, &flags)).0.output()
    };
    // Of 200 connections 3 are kept for superusers.
    assert!(!output("9").contains("more connections"));
    let warned = output("10");
    assert!(warned.contains("more connections") && warned.contains(r#""wanted":200,"room":197"#), "{warned}");
}

#[test]
fn without_a_subcommand_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let (_origin, address) = address(start(&sqlite(folder.path()), &["--listen", "127.0.0.1:0"]));
    let answer = ask(&address, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(&format!("x-origin: {address}\r\n")), "{answer}");
}

#[test]
fn an_operator_makes_the_first_administrator_and_proves_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    assert!(program(&url, &["seed", "--users", "3", "--likes", "0"]).status().unwrap().success());
    let made = program(&url, &["roles", "User3@example.org", "user", "admin"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (_origin, address) = address(start(&url, &["--listen", "127.0.0.1:0"]));
    let answer = login(&address);
    assert!(answer.contains(r#""roles":["user","admin"]"#), "{answer}");

    let token = program(&url, &["verification", "user3@example.org"]).output().unwrap();
    let body = format!(r#"{{"token":"{}"}}"#, String::from_utf8(token.stdout).unwrap().trim());
    let answer = ask(
        &address,
        &format!(
            "POST /auth/verify-email HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ),
    );
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    for wrong in [["roles", "nobody@example.org", "user"], ["roles", "user3@example.org", "king"]] {
        assert!(!program(&url, &wrong).output().unwrap().status.success(), "{wrong:?}");
    }
}

fn get(address: &str, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

fn register(address: &str, name: &str) {
    let body = format!(r#"{{"email":"{name}@example.org","password":"correct horse battery staple"}}"#);
    let length = body.len();
    let answer = ask(
        address,
        &format!(
            "POST /auth/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ),
    );
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[test]
fn on_sqlite_one_command_serves_and_mails() {
    let (folder, smtp) = (tempfile::tempdir().unwrap(), Smtp::start());
    let flags = ["--listen", "127.0.0.1:0", "--smtp-url", &smtp.url()];
    let (mut origin, address) = address(start(&sqlite(folder.path()), &flags));
    register(&address, "ada");
    assert!(wait_until(READY_WITHIN, || smtp.mails().len() == 1), "{}", origin.output());
    origin.signal("TERM");
    let status = origin.wait(Duration::from_secs(10)).expect("it stops when asked");
    assert!(status.success(), "{status}: {}", origin.output());
}

#[test]
fn on_postgres_a_worker_mails_and_says_how_it_is() {
    let (postgres, smtp) = (Postgres::start(), Smtp::start());
    let url = postgres.create_database();
    let (_origin, serving) = address(start(&url, &["serve", "--listen", "127.0.0.1:0"]));
    register(&serving, "ada");
    assert!(
        get(&serving, "/metrics").contains("weir_origin_jobs{state=\"waiting\"} 1"),
        "it is not its work"
    );

    let (mut worker, working) =
        address(start(&url, &["worker", "--listen", "127.0.0.1:0", "--smtp-url", &smtp.url()]));
    assert!(wait_until(READY_WITHIN, || smtp.mails().len() == 1), "{}", worker.output());
    let done = r#"weir_origin_jobs_ended_total{kind="welcome",outcome="done"} 1"#;
    assert!(wait_until(READY_WITHIN, || get(&working, "/metrics").contains(done)));
    assert!(get(&working, "/metrics").contains("weir_origin_jobs{state=\"waiting\"} 0"));
    let health = get(&working, "/health");
    assert!(health.starts_with("HTTP/1.1 200") && health.contains(r#""worker":"ok""#), "{health}");
    worker.signal("TERM");
    let status = worker.wait(Duration::from_secs(10)).expect("it stops when asked");
    assert!(status.success(), "{status}: {}", worker.output());
    let output = worker.output();
    assert!(
        !output.contains("token=") && !output.contains("ada@"),
        "no secret, no address in a log: {output}"
    );
}

/// The lines of a log that have all of these words, as JSON.
fn lines(program: &Child, words: &[&str]) -> Vec<serde_json::Value> {
    let output = program.output();
    let found = output.lines().filter(|line| words.iter().all(|word| line.contains(word)));
    found.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[test]
fn every_line_of_a_request_and_of_its_job_has_its_place_in_the_edges_trace() {
    let (postgres, smtp) = (Postgres::start(), Smtp::start());
    let url = postgres.create_database();
    let mut command = program(&url, &["serve", "--listen", "127.0.0.1:0"]);
    command.env("RUST_LOG", "info,sqlx::query=debug");
    let origin = Child::start(command, tempfile::tempdir().unwrap(), "KILL", "cargo").unwrap();
    let (origin, serving) = address(origin);
    let (worker, _) = address(start(&url, &["worker", "--listen", "127.0.0.1:0", "--smtp-url", &smtp.url()]));

    let (trace, edge) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let body = r#"{"email":"ada@example.org","password":"correct horse battery staple"}"#;
    let length = body.len();
    let register = |serving: &str| {
        ask(
            serving,
            &format!(
                "POST /auth/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                 Traceparent: 00-{trace}-{edge}-01\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            ),
        )
    };
    // A statement that has to wait is a slow one.
    let held = postgres.hold(&url, "LOCK TABLE users IN ACCESS EXCLUSIVE MODE");
    let answer = std::thread::scope(|scope| {
        let asked = scope.spawn(|| register(&serving));
        assert!(!wait_until(Duration::from_millis(500), || asked.is_finished()), "it waits");
        drop(held);
        asked.join().unwrap()
    });
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let of_trace = |words: &[&str]| lines(&origin, &[&[trace], words].concat());
    assert!(wait_until(READY_WITHIN, || !of_trace(&[r#""message":"request""#]).is_empty()));
    let part = of_trace(&[r#""message":"request""#])[0]["span"].clone();
    assert_eq!(part["parent_id"], edge);
    let own = part["span_id"].as_str().unwrap();
    assert!(own.len() == 16 && own != edge, "{part}");
    let slow = &of_trace(&["slow statement"])[0];
    assert!(slow["span"]["span_id"] == own && slow["elapsed_secs"].as_f64().unwrap() > 0.1, "{slow}");
    let fast = of_trace(&["INSERT INTO jobs", r#""level":"DEBUG""#]);
    assert!(fast.iter().any(|line| line["span"]["span_id"] == own), "each statement with its time: {fast:?}");

    let job = || lines(&worker, &[trace, r#""kind":"welcome""#]);
    assert!(wait_until(READY_WITHIN, || !job().is_empty()), "{}", worker.output());
    assert_ne!(job()[0]["span"]["span_id"], own, "another part of the same trace");

    let _done = postgres.hold(&url, "DROP TABLE users CASCADE; COMMIT");
    let answer = register(&serving);
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert_eq!(of_trace(&["internal error"])[0]["span"]["parent_id"], edge);
    get(&serving, "/posts");
    let begun = || lines(&origin, &["/posts", r#""message":"request""#]);
    assert!(wait_until(READY_WITHIN, || !begun().is_empty()));
    let part = &begun()[0]["span"];
    assert!(part["trace_id"] != trace && part["parent_id"].is_null(), "a trace of its own: {part}");
}

#[test]
fn mail_goes_by_tls_to_a_server_that_is_who_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = Smtp::start_tls(&certificate, &key);
    let starttls = Smtp::start_starttls(&certificate, &key);
    let servers = [
        (&tls, format!("smtps://{}", tls.address())),
        (&starttls, format!("smtp://{}?tls=required", starttls.address())),
    ];
    for (n, (smtp, smtp_url)) in servers.into_iter().enumerate() {
        let url = format!("sqlite://{}", folder.path().join(format!("{n}.db")).display());
        let flags = ["--listen", "127.0.0.1:0", "--job-backoff", "1", "--smtp-url", &smtp_url];
        let (origin, stranger) = address(start(&url, &flags));
        register(&stranger, "ada");
        let put_off = r#"weir_origin_jobs_ended_total{kind="welcome",outcome="later"}"#;
        assert!(
            wait_until(READY_WITHIN, || get(&stranger, "/metrics").contains(put_off)),
            "{}",
            origin.output()
        );
        assert!(smtp.mails().is_empty(), "nobody vouches for {smtp_url}");
        drop(origin);

        let trusting = [&flags[..], &["--smtp-ca", certificate.to_str().unwrap()]].concat();
        let (origin, _) = address(start(&url, &trusting));
        assert!(wait_until(READY_WITHIN, || smtp.mails().len() == 1), "{}", origin.output());
    }
}

#[test]
fn an_operator_sees_what_was_given_up_and_has_it_tried_again() {
    let (folder, smtp) = (tempfile::tempdir().unwrap(), Smtp::start_refusing());
    let url = sqlite(folder.path());
    let flags = ["--listen", "127.0.0.1:0", "--smtp-url", &smtp.url()];
    let (origin, serving) = address(start(&url, &flags));
    register(&serving, "ada");
    let given_up = || get(&serving, "/metrics").contains("weir_origin_jobs{state=\"dead\"} 1");
    assert!(wait_until(READY_WITHIN, given_up), "{}", origin.output());
    drop(origin);
    let dead = |flags: &[&str]| {
        let output = program(&url, &[&["dead"], flags].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = dead(&["--revive"]);
    assert!(
        listed.starts_with('{') && listed.contains(r#""kind":"welcome""#) && listed.contains("552"),
        "{listed}"
    );
    assert_eq!(dead(&[]), "", "it is due again");
}

#[test]
fn what_cannot_work_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    let failed = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let words =
        failed(program(&url, &["serve", "--listen", "127.0.0.1:0"]).env_remove("WEIR_IDENTITY_SECRET"));
    assert!(words.contains("--identity-secret"), "{words}");
    let words = failed(program(&url, &["--listen", "127.0.0.1:0"]).env_remove("WEIR_IDENTITY_SECRET"));
    assert!(words.contains("--identity-secret"), "{words}");
    let words =
        failed(program(&url, &["serve", "--listen", "127.0.0.1:0"]).env("WEIR_IDENTITY_SECRET", "short"));
    assert!(words.contains("32"), "{words}");
    for (flags, reason) in [
        (["--smtp-url", "mail.example.org"], "SMTP URL"),
        (["--smtp-url", "smtp://a:secret@mail.example.org"], "tls=required"),
        (["--mail-from", "nobody"], "Name <address@example.org>"),
        (["--site-url", "example.org"], "neither with http:// nor with https://"),
    ] {
        let words =
            failed(&mut program(&url, &[&["worker", "--listen", "127.0.0.1:0"], &flags[..]].concat()));
        assert!(words.contains(reason) && !words.contains("secret@"), "{words}");
    }
    let words = failed(&mut program("mysql://x/y", &["migrate"]));
    assert!(words.contains("neither with sqlite: nor with postgres:"), "{words}");
    let words = failed(&mut program("sqlite:///no/such/folder/x.db", &["migrate"]));
    assert!(words.contains("cannot open the database"), "{words}");
    let words = failed(&mut program(
        "postgres://nobody@127.0.0.1:1/x",
        &["--listen", "127.0.0.1:0", "--pool-acquire", "1"],
    ));
    assert!(words.contains("cannot open the database"), "{words}");
}
