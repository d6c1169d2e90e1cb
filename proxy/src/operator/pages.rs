//! What to warm: the pages that a list, a sitemap or an access log names, those that were asked for most often first.

use std::{collections::HashMap, io::Read};

use flate2::read::MultiGzDecoder;

/// A source longer than this, also unpacked, is not read to its end: the protocol of sitemaps allows 50 MB.
pub(super) const MOST_BYTES: u64 = 64 << 20;

/// A page to ask for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Page {
    /// Whether clients ask for it by https.
    pub(super) is_https: bool,
    /// Host, with a port where there is one.
    pub(super) host: String,
    /// Path and query.
    pub(super) target: String,
}

/// What a source names.
#[derive(Debug, Default)]
pub(super) struct Pages {
    uses: HashMap<Page, (usize, usize)>,
    /// Further sitemaps.
    pub(super) sitemaps: Vec<Page>,
    /// Lines that name nothing that could be asked for.
    pub(super) skipped: usize,
}

impl Pages {
    /// Adds what `bytes` name, packed or not: a sitemap or an index of sitemaps; or lines, each a URL, a path, or one of an access log
    /// (ours in JSON, or `combined`). Paths are at `host`.
    pub(super) fn read(&mut self, bytes: &[u8], host: Option<&str>) {
        let mut unpacked = Vec::new();
        let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
            // What is cut off or broken counts as far as it goes.
            let _ = MultiGzDecoder::new(bytes).take(MOST_BYTES).read_to_end(&mut unpacked);
            &unpacked
        } else {
            bytes
        };
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_start_matches('\u{feff}').trim_start();
        if text.starts_with('<') {
            let is_index = text.contains("<sitemapindex");
            for location in text.split("<loc>").skip(1).filter_map(|rest| rest.split("</loc>").next()) {
                match url(&unescaped(location.trim())) {
                    Some(page) if is_index => self.sitemaps.push(page),
                    page => self.add(page),
                }
            }
            return;
        }
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let page = if line.starts_with('{') {
                logged_json(line, host)
            } else if line.contains('"') {
                logged_combined(line, host)
            } else {
                url(line).or_else(|| at(host, line))
            };
            self.add(page);
        }
    }

    fn add(&mut self, page: Option<Page>) {
        let Some(page) = page else {
            self.skipped += 1;
            return;
        };
        let place = self.uses.len();
        self.uses.entry(page).or_insert((0, place)).0 += 1;
    }

    /// The pages, the most used first and others as they came; `most` of them.
    pub(super) fn ranked(self, most: usize) -> Vec<Page> {
        let mut pages: Vec<_> = self.uses.into_iter().collect();
        pages.sort_unstable_by_key(|(_, (uses, place))| (usize::MAX - uses, *place));
        pages.into_iter().map(|(page, _)| page).take(most).collect()
    }
}

/// A URL with a scheme.
pub(super) fn url(text: &str) -> Option<Page> {
    let (scheme, rest) = text.split_once("://")?;
    let is_https = scheme.eq_ignore_ascii_case("https");
    if !is_https && !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let rest = rest.split('#').next().unwrap_or_default();
    let (host, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let plain = !host.is_empty() && !host.contains('@');
    plain.then(|| Page { is_https, host: host.to_owned(), target }).filter(may_be_asked)
}

/// A path at a host, `example.org` or `https://example.org`.
fn at(host: Option<&str>, target: &str) -> Option<Page> {
    let host = host?;
    let page = url(host).or_else(|| url(&format!("http://{host}")))?;
    target.starts_with('/').then(|| Page { target: target.to_owned(), ..page }).filter(may_be_asked)
}

/// Whether nothing in it could end the line that asks for it.
fn may_be_asked(page: &Page) -> bool {
    [&page.host, &page.target].iter().all(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// A line of ours; only what was got, and was there.
fn logged_json(line: &str, host: Option<&str>) -> Option<Page> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_got = line["method"] == "GET" && line["status"].as_u64().is_some_and(|status| status < 400);
    let target = line["target"].as_str().filter(|_| is_got)?;
    match host {
        Some(_) => at(host, target),
        None => at(line["host"].as_str(), target),
    }
}

/// A line of nginx's `combined`.
fn logged_combined(line: &str, host: Option<&str>) -> Option<Page> {
    let mut parts = line.split('"');
    let request = parts.nth(1)?;
    let status: u16 = parts.next()?.split_whitespace().next()?.parse().ok()?;
    let mut words = request.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    (method == "GET" && status < 400).then(|| at(host, target)).flatten()
}

fn unescaped(text: &str) -> String {
    let text = text.strip_prefix("<![CDATA[").and_then(|text| text.strip_suffix("]]>")).unwrap_or(text);
    // The ampersand last, or `&amp;lt;` would become a bracket.
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use std::io::Write;

    use super::*;

    fn read(text: &str, host: Option<&str>) -> (Vec<String>, usize) {
        let mut pages = Pages::default();
        pages.read(text.as_bytes(), host);
        let skipped = pages.skipped;
        let shown = |page: Page| {
            format!("{}://{}{}", if page.is_https { "https" } else { "http" }, page.host, page.target)
        };
        (pages.ranked(100).into_iter().map(shown).collect(), skipped)
    }

    #[test]
    fn lists_name_urls_and_paths() {
        let list = "# what we know\nhttps://a.test/x?y=1#z\n\n/b\nhttp://a.test\nHTTP://a.test?q\nftp://a.test/\nhttp://u@a.test/\nb c\n";
        let (pages, skipped) = read(list, Some("b.test:81"));
        assert_eq!(
            pages,
            ["https://a.test/x?y=1", "http://b.test:81/b", "http://a.test/", "http://a.test/?q"]
        );
        assert_eq!(skipped, 3);
        assert_eq!(read("/b", Some("https://b.test")).0, ["https://b.test/b"]);
        assert_eq!(read("/b", None), (vec![], 1), "nobody said where");
        assert_eq!(read("http://a.test/x y\nhttp://a.test/\u{e9}\n", None).1, 2);
    }

    #[test]
    fn sitemaps_name_pages_and_their_indexes_sitemaps() {
        let map = "<?xml version=\"1.0\"?><urlset><url><loc> https://a.test/?a=1&amp;b=&lt; </loc></url><url><loc><![CDATA[https://a.test/2]]></loc></url></urlset>";
        assert_eq!(read(map, None).0, ["https://a.test/?a=1&b=<", "https://a.test/2"]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(map.as_bytes()).unwrap();
        let mut pages = Pages::default();
        pages.read(&packed.finish().unwrap(), None);
        assert_eq!(pages.ranked(1).len(), 1);
        let mut pages = Pages::default();
        pages.read(b"<sitemapindex><sitemap><loc>http://a.test/s.xml</loc></sitemap></sitemapindex>", None);
        assert_eq!((pages.sitemaps.len(), pages.ranked(9).len()), (1, 0));
    }

    #[test]
    fn logs_name_what_was_got_and_the_most_wanted_first() {
        let log = r#"1.2.3.4 - - [21/Nov/2026:20:00:00 +0000] "GET /once HTTP/1.1" 200 5 "-" "x"
1.2.3.4 - - [21/Nov/2026:20:00:00 +0000] "GET /often?a=1 HTTP/1.1" 304 0 "-" "GET /no HTTP/1.1"
1.2.3.4 - - [21/Nov/2026:20:00:00 +0000] "GET /often?a=1 HTTP/1.1" 200 5 "-" "x"
1.2.3.4 - - [21/Nov/2026:20:00:00 +0000] "POST /written HTTP/1.1" 200 5 "-" "x"
1.2.3.4 - - [21/Nov/2026:20:00:00 +0000] "GET /gone HTTP/1.1" 404 5 "-" "x"
{"method":"GET","host":"c.test","target":"/j","status":200}
{"method":"GET","host":"c.test","target":"/k","status":500}
{"serving":true}
"#;
        let (pages, skipped) = read(log, Some("a.test"));
        assert_eq!(pages, ["http://a.test/often?a=1", "http://a.test/once", "http://a.test/j"]);
        assert_eq!(skipped, 4);
        assert_eq!(read(log, None).0, ["http://c.test/j"]);
    }
}
