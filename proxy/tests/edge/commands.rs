//! The command line: what it prints, with which status it ends, and that nobody need listen.

use std::{
    io::pipe,
    process::{Command, Output, Stdio},
};

use weir_testkit::{free_port, wait_until};

use crate::support::{SOON, get};

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
