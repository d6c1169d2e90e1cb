//! The drill of `deploy/backup`: what is restored is what was there.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;
use weir_testkit::{Postgres, READY_WITHIN, wait_until};

/// The scripts and what they make, in a folder of the server's user.
struct Drill {
    folder: TempDir,
}

impl Drill {
    fn start() -> Self {
        let folder = Postgres::folder();
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/backup");
        for script in fs::read_dir(scripts).unwrap() {
            let script = script.unwrap().path();
            // Copied with its permissions: the server's user may not read where the sources are.
            fs::copy(&script, folder.path().join(script.file_name().unwrap())).unwrap();
        }
        let drill = Self { folder };
        let mut make = Postgres::command(Path::new("mkdir"));
        assert!(make.args([drill.path("log"), drill.path("base")]).status().unwrap().success());
        drill
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Postgres::command(&self.path(script));
        command.args(arguments);
        command
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        self.command(script, arguments).output().unwrap()
    }

    /// What the script prints; it must succeed.
    #[track_caller]
    fn says(&self, script: &str, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.run(script, arguments);
        assert!(status.success(), "{script}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap().trim().to_owned()
    }

    /// Why the script refuses.
    #[track_caller]
    fn refuses(&self, script: &str, arguments: &[&str]) -> String {
        let Output { status, stderr, .. } = self.run(script, arguments);
        assert!(!status.success(), "{script} succeeds");
        String::from_utf8(stderr).unwrap()
    }
}

/// Users by the origin's own hand.
fn seed(url: &str, users: &str) {
    let mut seed = Command::new(env!("CARGO_BIN_EXE_weir-origin"));
    seed.args([
        "seed", "--users", users, "--items", "300", "--notes", "50", "--posts", "20", "--likes", "40",
    ]);
    seed.env("WEIR_ARGON2_MEMORY", "8").env("WEIR_ARGON2_PASSES", "1").env("WEIR_DATABASE_URL", url);
    let seeded = seed.output().unwrap();
    assert!(seeded.status.success(), "{}", String::from_utf8_lossy(&seeded.stderr));
}

fn ask(url: &str, sql: &str) -> String {
    let asked =
        Postgres::command(Path::new("psql")).args(["-X", "-q", "-A", "-t", "-d", url, "-c", sql]).output();
    let Output { status, stdout, stderr } = asked.unwrap();
    assert!(status.success(), "{sql}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().trim().to_owned()
}

#[test]
fn a_dump_brings_every_row_back_into_a_fresh_cluster() {
    let drill = Drill::start();
    let dumps = drill.path("dumps");
    let dumps = dumps.to_str().unwrap();
    let (lost, url) = {
        let postgres = Postgres::start();
        let url = postgres.create_database();
        seed(&url, "30");
        (postgres, url)
    };
    let before = drill.says("fingerprint.sh", &[&url]);
    assert!(before.lines().any(|line| line.starts_with("items 300 ")), "{before}");
    let dump = drill.says("dump.sh", &[&url, dumps]);
    let after_a_change = {
        ask(&url, "UPDATE users SET email = 'x' || email WHERE id = (SELECT min(id::text)::uuid FROM users)");
        drill.says("fingerprint.sh", &[&url])
    };
    assert_ne!(before, after_a_change, "one row is enough to be seen");
    drop(lost);

    let fresh = Postgres::start();
    let url = fresh.create_database();
    drill.says("restore-dump.sh", &[&url, &dump]);
    assert_eq!(drill.says("fingerprint.sh", &[&url]), before);
    // The service starts on it: its schema is known to be up to date, its extension is there.
    seed(&url, "30");
    assert_eq!(drill.says("fingerprint.sh", &[&url]), before);

    assert!(drill.refuses("restore-dump.sh", &[&url, &dump]).contains("empty database"));
    fs::write(&dump, "not what was dumped").unwrap();
    assert!(drill.refuses("restore-dump.sh", &[&fresh.create_database(), &dump]).contains("did NOT match"));
}

#[test]
fn only_the_newest_dumps_are_kept_and_a_failed_one_removes_nothing() {
    let drill = Drill::start();
    let postgres = Postgres::start();
    let url = postgres.create_database();
    let dumps = drill.path("dumps");
    let names = || {
        let mut names: Vec<_> = fs::read_dir(&dumps)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    fs::create_dir(&dumps).unwrap();
    let mut give = Command::new("chmod");
    assert!(give.arg("777").arg(&dumps).status().unwrap().success());
    for old in ["weir-20250101T000000Z.dump", "weir-20250102T000000Z.dump"] {
        fs::write(dumps.join(old), "").unwrap();
        fs::write(dumps.join(format!("{old}.sha256")), "").unwrap();
    }
    let folder = dumps.to_str().unwrap();
    drill.refuses("dump.sh", &[&url.replace("/test_", "/none_"), folder, "1"]);
    assert_eq!(names().len(), 4, "{:?}", names());
    let made = drill.says("dump.sh", &[&url, folder, "2"]);
    let made = made.rsplit('/').next().unwrap();
    let wanted =
        ["weir-20250102T000000Z.dump", "weir-20250102T000000Z.dump.sha256", made, &format!("{made}.sha256")];
    assert_eq!(names(), wanted);
}

#[test]
fn a_base_backup_and_the_log_bring_back_the_moment_that_is_asked_for() {
    let drill = Drill::start();
    let (base, log) = (drill.path("base"), drill.path("log"));
    let (base, log) = (base.to_str().unwrap(), log.to_str().unwrap());
    let archive = format!("archive_command='{}' %p %f '{log}'", drill.path("archive-log.sh").display());
    let lost = Postgres::start_with(&["archive_mode=on", &archive]);
    let url = lost.create_database();
    seed(&url, "10");
    let name = drill.says("base.sh", &[&url, base, log]);
    // After the base backup, before the moment: only the log has it.
    seed(&url, "25");
    let wanted = drill.says("fingerprint.sh", &[&url]);
    let moment = ask(&url, "SELECT clock_timestamp()");
    // The mistake.
    ask(&url, "DELETE FROM items");
    let end = drill.says("fingerprint.sh", &[&url]);
    assert_ne!(wanted, end);
    let last = ask(&url, "SELECT pg_walfile_name(pg_current_wal_lsn())");
    ask(&url, "SELECT pg_switch_wal()");
    assert!(wait_until(READY_WITHIN, || drill.path("log").join(&last).exists()), "{}", lost.child().output());
    drop(lost);

    let restore = |time: Option<&str>| {
        let restored = Postgres::start_on(&[], |data| {
            let mut restore = drill.command("restore-point.sh", &[base, log]);
            restore.arg(data).args(time);
            restore
        });
        let url = restored.here(&url);
        let recovered = || ask(&url, "SELECT pg_is_in_recovery()") == "f";
        assert!(wait_until(READY_WITHIN, recovered), "{}", restored.child().output());
        (restored, url)
    };
    let (restored, there) = restore(Some(&moment));
    assert_eq!(drill.says("fingerprint.sh", &[&there]), wanted);
    seed(&there, "26");
    drop(restored);
    let (restored, there) = restore(None);
    assert_eq!(drill.says("fingerprint.sh", &[&there]), end, "all of the log");

    // A file of the log is never overwritten, and may be asked for again.
    let (kept, other) = (drill.path("log").join(&last), drill.path("archive-log.sh"));
    drill.says("archive-log.sh", &[kept.to_str().unwrap(), &last, log]);
    let why = drill.refuses("archive-log.sh", &[other.to_str().unwrap(), &last, log]);
    assert!(why.contains("is there already"), "{why}");
    let data = drill.path("data");
    let early = drill.refuses("restore-point.sh", &[base, log, data.to_str().unwrap(), "2001-01-01"]);
    assert!(early.contains("no base backup"), "{early}");
    // The next one is the only one that is kept, and what of the log came before it goes.
    let next = drill.says("base.sh", &[&there, base, log, "1"]);
    assert_ne!(name, next);
    assert!(Path::new(&next).exists() && !Path::new(&name).exists() && !kept.exists());
    drop(restored);
}
