//! The disk tier: what outlives the process, what is never served, and that a failing disk costs its hits alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Edge, Origin, until};

/// A folder for a cache, which outlives the edges that use it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    /// The top of a configuration with a cache there.
    pub(crate) fn named(&self, memory: &str, disk: &str) -> String {
        format!("caches: {{ store: {{ {memory}, disk: {{ path: {}, {disk} }} }} }}", self.path().display())
    }

    /// An edge that keeps everything for ten minutes, once it knows what lies there.
    pub(crate) fn edge(&self, origin: &Origin) -> Edge {
        let top = self.named("memory: 8MiB, entry_max: 1MiB", "size: 1GiB");
        let edge =
            Edge::routing(origin, "cache: { in: store, ttl: 600s, purge: { allow: [127.0.0.1] } }", &top);
        until("the scan of the folder", || sight(&edge)["scanned"] == true);
        edge
    }

    /// Its entries.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let parts = fs::read_dir(self.path()).unwrap().map(|part| part.unwrap().path());
        let parts = parts.filter(|part| part.is_dir() && !part.ends_with("tmp"));
        parts.flat_map(|part| fs::read_dir(part).unwrap().map(|file| file.unwrap().path())).collect()
    }

    /// The entry whose key has these words.
    pub(crate) fn file_of(&self, words: &str) -> PathBuf {
        let has =
            |file: &Path| fs::read(file).unwrap().windows(words.len()).any(|part| part == words.as_bytes());
        self.files().into_iter().find(|file| has(file)).unwrap()
    }

    /// What is being written.
    pub(crate) fn unfinished(&self) -> usize {
        fs::read_dir(self.path().join("tmp")).unwrap().count()
    }
}

/// What `weir caches` knows of the disk.
pub(crate) fn sight(edge: &Edge) -> Value {
    edge.operate("GET", "/caches", &Value::Null, "").1[0]["disk"].clone()
}

pub(crate) fn written(edge: &Edge, entries: u64) {
    until("the entries to be written", || sight(edge)["entries"] == entries);
}

pub(crate) fn happened(edge: &Edge, event: &str) -> f64 {
    edge.metric(&format!("weir_cache_disk_total{{cache=\"store\",event=\"{event}\"}}"))
}

#[test]
fn what_was_kept_is_there_after_a_kill() {
    let (folder, origin) = (Folder::new(), Origin::counting("vary: accept-language\r\netag: \"e\"\r\n"));
    let ask =
        |edge: &Edge, path: &str, language: &str| edge.ask(path, &format!("accept-language: {language}\r\n"));
    let edge = folder.edge(&origin);
    assert_eq!(ask(&edge, "/a", "de").text(), "1");
    assert_eq!(ask(&edge, "/a", "en").text(), "2");
    assert_eq!(ask(&edge, "/b", "de").text(), "3");
    written(&edge, 3);
    edge.signal("KILL");
    drop(edge);
    let edge = folder.edge(&origin);
    let explained = || {
        let question = json!({ "url": "http://edge.test/b", "headers": ["accept-language: de"] });
        let report = edge.operate("POST", "/explain", &question, "").1;
        (report["cache"]["lookup"].clone(), report["cache"]["entry"]["kept"].clone())
    };
    assert_eq!(explained(), (json!("hit"), json!("on disk")));
    for (path, language, body) in [("/a", "en", "2"), ("/b", "de", "3"), ("/a", "de", "1")] {
        let answer = ask(&edge, path, language);
        assert_eq!(answer.text(), body);
        assert!(answer.cache().starts_with("weir; hit; ttl="), "{}", answer.cache());
        assert_eq!((&*answer.field("etag"), answer.has("age")), ("\"e\"", true));
    }
    assert_eq!(explained(), (json!("hit"), json!("in memory")));
    assert_eq!(edge.ask("/b", "accept-language: de\r\nif-none-match: \"e\"\r\n").status, 304);
    assert_eq!(origin.count(), 3);
    assert_eq!(ask(&edge, "/a", "fr").text(), "4");
    assert_eq!((happened(&edge, "hit"), happened(&edge, "damaged")), (3.0, 0.0));
    let answers = |result: &str| {
        edge.metric(&format!("weir_cache_requests_total{{cache=\"store\",result=\"{result}\"}}"))
    };
    assert_eq!((answers("hit"), answers("miss")), (4.0, 1.0));
}

#[test]
fn what_was_kept_just_before_an_orderly_end_is_there_after_it() {
    let (folder, origin) = (Folder::new(), Origin::counting(""));
    let mut edge = folder.edge(&origin);
    for at in 0..50 {
        edge.get(&format!("/{at}"));
    }
    edge.signal("TERM");
    assert!(edge.ended().success());
    let edge = folder.edge(&origin);
    for at in 0..50 {
        assert_eq!(edge.get(&format!("/{at}")).text(), (at + 1).to_string());
    }
    assert_eq!(origin.count(), 50);
}

#[test]
fn a_damaged_file_is_never_served_and_is_dropped() {
    let (folder, origin) = (Folder::new(), Origin::counting("x-word: unchanged\r\n"));
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 8] = [
        |file| file.clear(),
        |file| file.truncate(file.len() - 1),
        |file| file.push(0),
        |file| file[7] += 1,
        |file| *file = b"something else that somebody left here, and that is no entry of any cache".to_vec(),
        |file| {
            let at = file.windows(9).position(|word| word == b"unchanged").unwrap();
            file[at..at + 9].copy_from_slice(b"forgeries");
        },
        |file| {
            let last = file.len() - 5;
            file[last] ^= 1;
        },
        |file| file.fill(0),
    ];
    let edge = folder.edge(&origin);
    let paths: Vec<String> = (0..damages.len()).map(|at| format!("/number-{at}")).collect();
    paths.iter().for_each(|path| drop(edge.get(path)));
    edge.get("/whole");
    written(&edge, damages.len() as u64 + 1);
    drop(edge);
    let mut files = Vec::new();
    for (path, damage) in paths.iter().zip(damages) {
        let file = folder.file_of(path);
        let mut bytes = fs::read(&file).unwrap();
        damage(&mut bytes);
        fs::write(&file, bytes).unwrap();
        files.push(file);
    }
    // One entry under another's name.
    let whole = fs::read(folder.file_of("/whole")).unwrap();
    fs::write(&files[0], whole).unwrap();
    fs::write(folder.path().join("00/a-note"), "not ours").unwrap();
    let edge = folder.edge(&origin);
    for (at, path) in paths.iter().enumerate() {
        let answer = edge.get(path);
        assert_eq!(
            (answer.text(), &*answer.field("x-word")),
            ((damages.len() + 2 + at).to_string(), "unchanged")
        );
    }
    assert_eq!(edge.get("/whole").text(), (damages.len() + 1).to_string());
    assert_eq!(happened(&edge, "damaged"), damages.len() as f64);
    until("the damaged files to go", || files.iter().all(|file| !file.exists()));
    assert!(folder.path().join("00/a-note").exists(), "what is not ours is left alone");
    written(&edge, damages.len() as u64 + 1);
}

#[test]
fn a_purge_holds_after_a_kill() {
    let (folder, origin) = (Folder::new(), Origin::counting("cache-tag: news\r\n"));
    let plain = Origin::counting("");
    let top = folder.named("memory: 8MiB", "size: 64MiB");
    let start = || {
        let edge = Edge::start(&format!(
            "{top}\nupstreams: {{ api: {{ servers: [{}] }}, plain: {{ servers: [{}] }} }}\nroutes:\n  \
             - {{ match: /tagged/*, to: api, cache: {{ in: store, ttl: 600s }} }}\n  \
             - {{ match: /*, to: plain, cache: {{ in: store, ttl: 600s, purge: {{ allow: [127.0.0.1] }} }} }}\n",
            origin.address, plain.address
        ));
        until("the scan of the folder", || sight(&edge)["scanned"] == true);
        edge
    };
    let paths = ["/tagged/a", "/key", "/url", "/far/below", "/far/below/2", "/written", "/asked", "/kept"];
    // Which of them the origin is asked for.
    let fetched = |edge: &Edge| {
        let is_hit = |path: &&&str| !edge.get(path).cache().starts_with("weir; hit");
        paths.iter().filter(is_hit).copied().collect::<Vec<_>>()
    };
    let edge = start();
    assert_eq!(fetched(&edge), paths);
    written(&edge, paths.len() as u64);
    for what in [
        json!({ "tag": "news" }),
        json!({ "key": "http://edge.test/key" }),
        json!({ "url": "http://edge.test/url" }),
        json!({ "prefix": "http://edge.test/far/" }),
    ] {
        assert_eq!(edge.order(&what).0, 200);
    }
    assert_eq!(
        edge.send("POST /written HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 0\r\n\r\n").status,
        200
    );
    assert_eq!(edge.send("PURGE /asked HTTP/1.1\r\nhost: edge.test\r\n\r\n").status, 200);
    edge.signal("KILL");
    drop(edge);
    let edge = start();
    assert_eq!(fetched(&edge), paths[..7], "purged, then killed: still gone");
    // What was fetched since is as good as ever, also in the next life.
    written(&edge, paths.len() as u64);
    drop(edge);
    let edge = start();
    assert_eq!(fetched(&edge), [""; 0]);
    assert_eq!(edge.order(&json!({ "tag": "news", "soft": true })).0, 200);
    drop(edge);
    let edge = start();
    assert_eq!(fetched(&edge), ["/tagged/a"], "softly purged: asked about");
    written(&edge, paths.len() as u64);
    assert_eq!(edge.order(&json!({ "all": "store" })).0, 200);
    drop(edge);
    let edge = start();
    assert_eq!(fetched(&edge), paths, "everything was purged");
}

#[test]
fn entries_without_their_purges_are_dropped() {
    let (folder, origin) = (Folder::new(), Origin::counting(""));
    let edge = folder.edge(&origin);
    for path in ["/a", "/b"] {
        edge.get(path);
    }
    written(&edge, 2);
    drop(edge);
    fs::remove_file(folder.path().join("purges")).unwrap();
    // Lives without a ledger begin with the clock's second.
    std::thread::sleep(Duration::from_millis(1100));
    let edge = folder.edge(&origin);
    assert_eq!(edge.get("/a").text(), "3");
    written(&edge, 1);
    until("what lay there to be dropped", || folder.files().len() == 1);
    drop(edge);
    let edge = folder.edge(&origin);
    assert_eq!(edge.get("/a").text(), "3");
    assert_eq!(edge.get("/b").text(), "4", "the next start does not find it, either");
}

#[test]
fn the_budget_is_kept_on_disk_too_and_what_is_asked_for_stays() {
    let (folder, origin) = (Folder::new(), Origin::start(|_, wire| wire.answer("", vec![7; 500 << 10])));
    let top = folder.named("memory: 1MiB, entry_max: 600KiB", "size: 16MiB");
    let edge = Edge::routing(&origin, "cache: { in: store, ttl: 600s }", &top);
    for at in 0..80 {
        assert_eq!(edge.get(&format!("/{at}")).body.len(), 500 << 10);
        // Of every few, the loved one.
        assert_eq!(edge.get("/0").body.len(), 500 << 10);
        until("what waits to be written", || {
            happened(&edge, "written") + happened(&edge, "skipped") > f64::from(at)
        });
        assert!(sight(&edge)["bytes"].as_u64().unwrap() <= 16 << 20);
    }
    assert!(happened(&edge, "evicted") > 20.0);
    until("what was evicted to be deleted", || {
        let bytes: u64 =
            folder.files().iter().map(|file| fs::metadata(file).map_or(0, |about| about.len())).sum();
        bytes <= 16 << 20 && folder.files().len() as u64 == sight(&edge)["entries"].as_u64().unwrap()
    });
    assert_eq!(origin.seen().iter().filter(|request| request.target() == "/0").count(), 1);
}

#[test]
fn a_folder_that_is_gone_costs_its_hits_alone_and_is_told_of() {
    let (folder, origin) = (Folder::new(), Origin::counting(""));
    let edge = folder.edge(&origin);
    edge.get("/a");
    written(&edge, 1);
    fs::remove_dir_all(folder.path()).unwrap();
    assert_eq!(edge.get("/b").text(), "2");
    until("the disk to be known as failing", || edge.metric("weir_cache_disk_up{cache=\"store\"}") == 0.0);
    for at in 3..20 {
        assert_eq!(edge.get(&format!("/{at}")).text(), at.to_string());
    }
    assert_eq!([edge.get("/a").text(), edge.get("/b").text(), edge.get("/3").text()], ["1", "2", "3"]);
    let health = edge.admin("/health");
    let health: Value = serde_json::from_slice(&health.body).unwrap();
    assert_eq!(
        (&health["status"], &health["checks"]["disks"]["store"]["status"]),
        (&json!("degraded"), &json!("down"))
    );
    assert_eq!(edge.output().matches("cannot be written, memory goes on").count(), 1, "{}", edge.output());
    assert!(sight(&edge)["works"] == false);
}

#[test]
fn a_folder_belongs_to_one_cache_of_one_process() {
    let (folder, origin) = (Folder::new(), Origin::counting(""));
    let edge = folder.edge(&origin);
    let weir = |word: &str| {
        let run = Command::new(env!("CARGO_BIN_EXE_weir")).arg(word).arg(edge.config()).output().unwrap();
        (run.status.success(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    let (started, said) = weir("run");
    assert!(!started && said.contains("give each one a folder of its own"), "{said}");
    assert!(weir("check").0, "a check is no second process");
    let yaml = |disk: &str| {
        format!(
            "caches: {{ store: {{ memory: 8MiB{disk} }} }}\nupstreams: {{ api: {{ servers: [{}] }} }}\nroutes:\n  \
             - {{ match: /*, to: api, cache: {{ in: store, ttl: 600s }} }}\n",
            origin.address
        )
    };
    edge.get("/a");
    written(&edge, 1);
    let at = |path: &Path, size: &str| yaml(&format!(", disk: {{ path: {}, size: {size} }}", path.display()));
    edge.reload(&at(&folder.path(), "32MiB"));
    let stats = sight(&edge);
    assert_eq!((&stats["budgetBytes"], &stats["entries"]), (&json!(32 << 20), &json!(1)), "carried over");
    assert!(!edge.reloaded(&at(Path::new("/dev/null"), "32MiB")));
    assert!(!edge.reloaded(&at(&folder.path().join("no/where"), "32MiB")));
    assert_eq!(sight(&edge)["entries"], 1, "a refused file changes nothing");
    edge.reload(&yaml(""));
    assert!(sight(&edge).is_null());
    let other = folder.edge(&origin);
    assert_eq!(other.get("/a").text(), "1", "let go of, with what lies there");
}
