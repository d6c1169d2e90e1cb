//! The command line: what it prints, with which status it ends, and that nobody need listen.

use std::{
    io::pipe,
    process::{Command, Output, Stdio},
};

use weir_testkit::{free_port, wait_until};

use crate::{
    protocols::certificate,
    support::{SOON, get},
};

fn weir(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The end of a pipe that nobody reads any more.
fn nobody_listens() -> std::io::PipeWriter {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer
}

#[test]
fn whoever_reads_the_output_may_go_early() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("config.yaml");
    std::fs::write(&broken, "listeners: [nowhere]\n").unwrap();
    let broken = broken.to_str().unwrap();
    for arguments in [&["schema"][..], &["completions", "bash"], &["--help"]] {
        let output = weir(arguments).stdout(nobody_listens()).output().unwrap();
        assert_eq!(said(&output).1, "", "{arguments:?}");
        assert!(output.status.success(), "{arguments:?}: {}", output.status);
    }
    for arguments in [["check", broken], ["run", broken], ["translate", "/nowhere/nginx.conf"]] {
        let status = weir(&arguments).stdout(nobody_listens()).stderr(nobody_listens()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn an_edge_whose_output_nobody_reads_serves() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let config = folder.path().join("config.yaml");
    let yaml =
        format!("listeners: [127.0.0.1:{port}]\nadmin: off\nroutes: [{{ answer: {{ body: hello }} }}]\n");
    std::fs::write(&config, yaml).unwrap();
    let mut edge = weir(&["run", config.to_str().unwrap()])
        .stdout(nobody_listens())
        .stderr(nobody_listens())
        .spawn()
        .unwrap();
    let address = ([127, 0, 0, 1], port).into();
    let is_up = wait_until(SOON, || std::net::TcpStream::connect(address).is_ok());
    let answers = is_up.then(|| [get(address, "/").text(), get(address, "/").text()]);
    let _ = edge.kill();
    let _ = edge.wait();
    assert_eq!(answers, Some(["hello".to_owned(), "hello".to_owned()]));
}

/// A folder with a configuration in it.
fn written(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join(name);
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap().to_owned();
    (folder, config)
}

fn ended(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = weir(arguments).output().unwrap();
    let (out, err) = said(&output);
    (output.status.code(), out, err)
}

#[test]
fn an_nginx_conf_says_what_it_loses_before_it_serves() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (_folder, config) = written(
        "nginx.conf",
        &format!(
            "events {{}}\nhttp {{\n  access_log /dev/null odd;\n  server {{\n    listen {};\n    ssi on;\n    return 204;\n  }}\n}}\n",
            taken.local_addr().unwrap()
        ),
    );
    // `run` cannot listen there: it has said everything by then.
    for (command, status) in [("check", 0), ("run", 1)] {
        let (code, out, err) = ended(&[command, &config]);
        assert_eq!(code, Some(status), "{err}");
        assert!(err.contains("nginx.conf:6:5: warning: `ssi on`: refused: "), "{err}");
        assert!(err.contains("nginx.conf:3:3: warning: `access_log /dev/null odd`: approximated: "), "{err}");
        assert!(
            !err.contains("`return") && !err.contains("`events`"),
            "the exact and harmless are not listed: {err}"
        );
        assert!(
            format!("{out}{err}").contains("7 directives: 4 exact, 1 approximated, 1 ignored, 1 refused"),
            "{out}{err}"
        );
    }
}

#[test]
fn a_translation_that_lacks_something_succeeds_only_when_that_is_accepted() {
    let lacking = "http { server { listen 80; ssi on; return 204; } }\n";
    let (_folder, lacking) = written("nginx.conf", lacking);
    let (code, yaml, err) = ended(&["translate", &lacking]);
    assert_eq!(code, Some(3));
    assert!(yaml.contains("listeners:"), "what there is is printed: {yaml}");
    assert!(err.contains("1 directive was refused") && err.contains("--allow-refused"), "{err}");
    assert_eq!(ended(&["translate", &lacking, "--allow-refused"]).0, Some(0));
    let (_folder, whole) = written("nginx.conf", "http { server { listen 80; return 204; } }\n");
    let (code, _, err) = ended(&["translate", &whole]);
    assert!(code == Some(0) && !err.contains("--allow-refused"), "{err}");
    let (_folder, broken) = written("nginx.conf", "http { server {\n  listn 80; } }\n");
    let (code, yaml, err) = ended(&["translate", &broken]);
    assert_eq!((code, &*yaml), (Some(1), ""));
    assert!(err.contains("nginx.conf:2:3: error: unknown directive \"listn\""), "{err}");
}

#[test]
fn what_cannot_be_had_is_refused_by_check_and_run_alike_all_at_once_at_its_key() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "a", "a.test");
    certificate(folder.path(), "b", "b.test");
    let at = folder.path().display();
    let config = folder.path().join("config.yaml");
    let yaml = format!(
        "listeners:
  - address: 127.0.0.1:0
    tls:
      certificates:
        - chain: {at}/a.pem
          key: {at}/b.key
        - chain: {at}/none.pem
          key: {at}/none.key
admin: off
upstreams:
  api:
    servers: [127.0.0.1:1]
    tls:
      ca: {at}/none.pem
routes:
  - match: /files/*
    files:
      root: {at}/none
  - to: api
    error_pages:
      - status: 502
        file: {at}/none.html
log:
  access:
    path: {at}/none/access.log
"
    );
    std::fs::write(&config, yaml).unwrap();
    for command in ["check", "run"] {
        let (code, _, err) = ended(&[command, config.to_str().unwrap()]);
        assert_eq!(code, Some(1), "{err}");
        for (place, says) in [
            ("6:16: error: ", "b.key: is not the key of "),
            ("7:18: error: ", "none.pem: cannot be read as PEM certificates"),
            ("8:16: error: ", "none.key: cannot be read as a PEM key"),
            ("14:11: error: upstream api: ", "none.pem: cannot be read"),
            ("18:13: error: route /files/*: ", "/none cannot be served"),
            ("22:15: warning: ", "none.html cannot be read"),
            ("25:11: error: ", "none/access.log: No such file"),
        ] {
            let is_said =
                err.lines().any(|line| line.contains(&format!("config.yaml:{place}")) && line.contains(says));
            assert!(is_said, "{command}: {place} {says}\n{err}");
        }
    }
    assert!(!folder.path().join("none").exists(), "nothing was made");
}

#[test]
fn check_warns_of_a_name_without_address_and_run_refuses_it_at_its_line() {
    let yaml = "listeners: [127.0.0.1:0]\nadmin: off\nupstreams:\n  a: { servers: [no-such-host.invalid:80] }\n  b:\n    servers:\n      - other.invalid:80\nroutes: [{ match: /a, to: a }, { to: b }]\n";
    let (_folder, config) = written("config.yaml", yaml);
    for (command, status, severity) in [("check", 0, "warning"), ("run", 1, "error")] {
        let (code, _, err) = ended(&[command, &config]);
        assert_eq!(code, Some(status), "{err}");
        for at in ["4:18", "7:9"] {
            assert!(err.contains(&format!("config.yaml:{at}: {severity}: upstream ")), "{err}");
        }
    }
}

#[test]
fn an_address_that_is_taken_is_named_at_its_line_by_run_and_an_impossible_one_by_check_too() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    // 192.0.2.1 is for documentation (RFC 5737): nobody has it.
    let yaml = |listener: &str| {
        format!("listeners:\n  - {listener}\nadmin: {{ address: {taken} }}\nroutes: [{{ answer: {{}} }}]\n")
    };
    let (_folder, config) = written("config.yaml", &yaml("192.0.2.1:8080"));
    for command in ["check", "run"] {
        let (code, _, err) = ended(&[command, &config]);
        assert!(
            code == Some(1) && err.contains("config.yaml:2:5: error: cannot listen on 192.0.2.1:8080: "),
            "{err}"
        );
    }
    let (_folder, config) = written("config.yaml", &yaml("127.0.0.1:0"));
    assert_eq!(ended(&["check", &config]).0, Some(0), "the edge itself may have it");
    let (code, _, err) = ended(&["run", &config]);
    assert!(code == Some(1) && err.contains("config.yaml:3:19: error: admin: cannot listen on "), "{err}");
    assert!(err.contains("Address already in use"), "{err}");
}

#[test]
fn a_file_that_is_no_text_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, b"version: 1\n# caf\xe9\n").unwrap();
    let (code, _, err) = ended(&["check", config.to_str().unwrap()]);
    assert!(
        code == Some(1) && err.contains("line 2 is not UTF-8") && err.contains("help: save it as UTF-8"),
        "{err}"
    );
}
