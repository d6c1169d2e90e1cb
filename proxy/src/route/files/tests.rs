//! A folder on disk, asked as a client would.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use super::*;

struct Site {
    folder: tempfile::TempDir,
    files: Files,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for (name, text) in [
            ("a.css", "0123456789"),
            ("sub/index.html", "<p>"),
            (".env", "secret"),
            (".well-known/x.txt", "x"),
        ] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(root.join("empty.bin"), "").unwrap();
        fs::write(root.join("a b.txt"), "space").unwrap();
        fs::write(folder.path().join("outside.txt"), "no").unwrap();
        std::os::unix::fs::symlink("../outside.txt", root.join("link.txt")).unwrap();
        std::os::unix::fs::symlink("a.css", root.join("inside.css")).unwrap();
        let files = Files::with(&root, "/static/", "index.html", Some("public, max-age=60")).unwrap();
        Self { folder, files }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        fields: &[(header::HeaderName, &str)],
    ) -> (FileAnswer, String) {
        self.ask_at(method, path, fields, SystemTime::now() + Duration::from_secs(60)).await
    }

    async fn ask_at(
        &self,
        method: Method,
        path: &str,
        fields: &[(header::HeaderName, &str)],
        now: SystemTime,
    ) -> (FileAnswer, String) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let path = Path::parse(path).unwrap();
        let mut answer = self.files.open(&path, Some("q=1"), &method, &headers, now).await;
        let mut text = String::new();
        if let Some(body) = answer.body.take() {
            body.file.take(body.length).read_to_string(&mut text).await.unwrap();
        }
        (answer, text)
    }

    async fn get(&self, path: &str, fields: &[(header::HeaderName, &str)]) -> (u16, String) {
        let (answer, text) = self.ask(Method::GET, path, fields).await;
        (answer.status.as_u16(), text)
    }
}

fn field(answer: &FileAnswer, name: header::HeaderName) -> &str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_file_comes_with_type_length_and_validators() {
    let site = Site::new();
    let (answer, text) = site.ask(Method::GET, "/static/a.css", &[]).await;
    assert_eq!((answer.status, text.as_str()), (StatusCode::OK, "0123456789"));
    assert_eq!(field(&answer, header::CONTENT_TYPE), "text/css; charset=utf-8");
    assert_eq!(field(&answer, header::CONTENT_LENGTH), "10");
    assert_eq!(field(&answer, header::CACHE_CONTROL), "public, max-age=60");
    assert!(field(&answer, header::ETAG).starts_with('"'));
    assert!(field(&answer, header::LAST_MODIFIED).ends_with("GMT"));
    let (head, none) = site.ask(Method::HEAD, "/static/a.css", &[]).await;
    assert_eq!((head.headers, none.as_str()), (answer.headers, ""));
    assert_eq!(site.get("/static/a%20b.txt", &[]).await, (200, "space".into()));
    assert_eq!(site.get("/static/empty.bin", &[]).await, (200, String::new()));
}

#[tokio::test]
async fn nothing_outside_hidden_or_under_a_second_name_is_served() {
    let site = Site::new();
    for path in [
        "/static/link.txt",
        "/static/.env",
        "/static/%2eenv",
        "/static/none",
        "/static/a.css/",
        "/static/a.css/x",
        "/static/sub%2Findex.html",
        "/static//a.css",
        "/static/",
        "/other/a.css",
        "/staticx/a.css",
    ] {
        assert_eq!(site.get(path, &[]).await.0, 404, "{path}");
    }
    assert_eq!(site.get("/static/inside.css", &[]).await.0, 200);
    assert_eq!(site.get("/static/.well-known/x.txt", &[]).await.0, 200);
    assert!(site.folder.path().join("outside.txt").exists());
}

#[tokio::test]
async fn a_folder_is_its_index_and_gets_its_slash() {
    let site = Site::new();
    let (answer, text) = site.ask(Method::GET, "/static/sub/", &[]).await;
    assert_eq!((text.as_str(), field(&answer, header::CONTENT_TYPE)), ("<p>", "text/html; charset=utf-8"));
    let (answer, _) = site.ask(Method::GET, "/static/sub", &[]).await;
    assert_eq!(answer.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(field(&answer, header::LOCATION), "/static/sub/?q=1");
}

#[tokio::test]
async fn a_folder_cannot_redirect_to_another_site() {
    let site = Site::new();
    let files = Files::with(&site.folder.path().join("root"), "/", "index.html", None).unwrap();
    let ask = async |path| {
        let path = Path::parse(path).unwrap();
        files.open(&path, None, &Method::GET, &HeaderMap::new(), SystemTime::now()).await
    };
    assert_eq!(field(&ask("/sub").await, header::LOCATION), "/sub/");
    assert_eq!(ask("//sub").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn other_methods_are_refused_with_those_that_work() {
    let (answer, _) = Site::new().ask(Method::POST, "/static/a.css", &[]).await;
    assert_eq!((answer.status.as_u16(), field(&answer, header::ALLOW)), (405, "GET, HEAD"));
}

#[tokio::test]
async fn conditions_are_weighed_in_the_order_of_the_rfc() {
    let site = Site::new();
    let (answer, _) = site.ask(Method::GET, "/static/a.css", &[]).await;
    let (etag, date) = (field(&answer, header::ETAG), field(&answer, header::LAST_MODIFIED));
    let weak = format!("\"x\", W/{etag}");
    let past = "Thu, 01 Jan 1970 00:00:00 GMT";
    for (fields, status) in [
        (vec![(header::IF_NONE_MATCH, etag)], 304),
        (vec![(header::IF_NONE_MATCH, weak.as_str())], 304),
        (vec![(header::IF_NONE_MATCH, "*")], 304),
        (vec![(header::IF_NONE_MATCH, "\"x\"")], 200),
        (vec![(header::IF_MODIFIED_SINCE, date)], 304),
        (vec![(header::IF_MODIFIED_SINCE, past)], 200),
        (vec![(header::IF_MODIFIED_SINCE, "nonsense")], 200),
        (vec![(header::IF_NONE_MATCH, "\"x\""), (header::IF_MODIFIED_SINCE, date)], 200),
        (vec![(header::IF_MATCH, etag)], 200),
        (vec![(header::IF_MATCH, "\"x\"")], 412),
        (vec![(header::IF_UNMODIFIED_SINCE, date)], 200),
        (vec![(header::IF_UNMODIFIED_SINCE, past)], 412),
        (vec![(header::IF_MATCH, etag), (header::IF_NONE_MATCH, etag)], 304),
    ] {
        assert_eq!(site.get("/static/a.css", &fields).await.0, status, "{fields:?}");
    }
    let (answer, _) = site.ask(Method::GET, "/static/a.css", &[(header::IF_NONE_MATCH, etag)]).await;
    assert_eq!(field(&answer, header::ETAG), etag);
    assert_eq!(field(&answer, header::CACHE_CONTROL), "public, max-age=60");
    assert_eq!(field(&answer, header::CONTENT_LENGTH), "");
}

#[tokio::test]
async fn one_range_is_a_part_and_everything_else_the_whole() {
    let site = Site::new();
    for (range, status, text) in [
        ("bytes=0-3", 206, "0123"),
        ("bytes=7-", 206, "789"),
        ("bytes=-2", 206, "89"),
        ("bytes=-99", 206, "0123456789"),
        ("BYTES=8-99999999999999999999999", 206, "89"),
        ("bytes=10-", 416, ""),
        ("bytes=-0", 416, ""),
        ("bytes=5-3", 200, "0123456789"),
        ("bytes=0-1,4-5", 200, "0123456789"),
        ("lines=0-1", 200, "0123456789"),
        ("bytes=+1-2", 200, "0123456789"),
        ("bytes=-", 200, "0123456789"),
    ] {
        assert_eq!(
            site.get("/static/a.css", &[(header::RANGE, range)]).await,
            (status, text.into()),
            "{range}"
        );
    }
    assert_eq!(site.get("/static/empty.bin", &[(header::RANGE, "bytes=0-")]).await.0, 416);
    let (answer, _) = site.ask(Method::GET, "/static/a.css", &[(header::RANGE, "bytes=2-4")]).await;
    assert_eq!(field(&answer, header::CONTENT_RANGE), "bytes 2-4/10");
    assert_eq!(field(&answer, header::CONTENT_LENGTH), "3");
    let (answer, _) = site.ask(Method::GET, "/static/a.css", &[(header::RANGE, "bytes=10-")]).await;
    assert_eq!(field(&answer, header::CONTENT_RANGE), "bytes */10");
}

#[tokio::test]
async fn if_range_gives_a_part_only_of_the_very_same_file() {
    let site = Site::new();
    let (answer, _) = site.ask(Method::GET, "/static/a.css", &[]).await;
    let (etag, date) = (field(&answer, header::ETAG), field(&answer, header::LAST_MODIFIED));
    let weak = format!("W/{etag}");
    for (condition, status) in [(etag, 206), (date, 206), ("\"x\"", 200), (weak.as_str(), 200)] {
        let fields = [(header::RANGE, "bytes=0-0"), (header::IF_RANGE, condition)];
        assert_eq!(site.get("/static/a.css", &fields).await.0, status, "{condition}");
    }
}

#[tokio::test]
async fn a_file_of_this_very_second_has_a_weak_tag() {
    let site = Site::new();
    let now = fs::metadata(site.folder.path().join("root/a.css")).unwrap().modified().unwrap();
    let (answer, _) = site.ask_at(Method::GET, "/static/a.css", &[], now).await;
    assert!(field(&answer, header::ETAG).starts_with("W/\""));
}
