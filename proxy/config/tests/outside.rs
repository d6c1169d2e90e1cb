//! What a config asks of the machine: files that hold secrets.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use std::{io, path::Path};

use weir_config::{Outside, load, plan::RedisServers};

struct Machine;

impl Outside for Machine {
    fn env(&self, _: &str) -> Option<String> {
        None
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("/run/redis") => Ok("redis://:hunter2@127.0.0.1:6379\n".into()),
            Some("/run/identity") => Ok("0123456789abcdef0123456789abcdef\n".into()),
            Some("/run/short") => Ok("hunter2".into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn config(identity: &str) -> String {
    format!(
        "listeners: [0.0.0.0:8080]\nredis: {{ url_file: /run/redis }}\nidentity: {{ secret_file: {identity} }}\n\
         routes: [{{ answer: {{}} }}]\n"
    )
}

#[test]
fn secrets_come_from_files_without_their_line_end() {
    let plan = load("config.yaml", &config("/run/identity"), &Machine).unwrap().plan;
    let RedisServers::One(url) = &plan.redis.as_ref().unwrap().servers else { panic!("one server") };
    assert_eq!(url.expose(), "redis://:hunter2@127.0.0.1:6379");
    assert_eq!(plan.identity.as_ref().unwrap().secret.expose().len(), 32);
    assert!(!format!("{plan:?}").contains("hunter2"));
}

#[test]
fn a_file_that_is_missing_or_too_short_is_a_problem_of_its_key() {
    for (file, cause) in [("/run/none", "cannot be read"), ("/run/short", "7 bytes")] {
        let report = load("config.yaml", &config(file), &Machine).unwrap_err();
        let problem = &report.problems()[0];
        assert!(problem.message.contains(cause), "{report}");
        assert_eq!(problem.path, "identity.secret_file");
        assert!(!report.to_string().contains("hunter2"));
    }
}
