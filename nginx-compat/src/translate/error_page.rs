//! `error_page`: a file, or another address. What would be a request of its own in nginx (a named location, one that
//! forwards) has no counterpart.

use weir_config::raw::{ErrorPage, Redirect, Route, Word};

use super::{Translator, list};
use crate::{
    scope::Scope,
    tree::Directive,
    value::number,
    variable::{self, Known},
};

/// What the file of a page is; nginx's `mime.types` knows more, error pages rarely do.
const KINDS: [(&str, &str); 4] =
    [(".html", "text/html"), (".htm", "text/html"), (".json", "application/json"), (".txt", "text/plain")];

impl<'a> Translator<'a, '_> {
    /// The pages that hold in `scope`.
    pub(super) fn error_pages(&mut self, scope: &Scope<'a>, known: &Known, route: &mut Route) {
        let mut pages = Vec::new();
        for directive in scope.all("error_page") {
            match page(directive, scope, known) {
                Ok((page, root)) => {
                    self.ledger.exact(directive);
                    root.into_iter().for_each(|root| self.ledger.exact(root));
                    pages.push(page);
                }
                Err(what_to_do) => self.ledger.refused(directive, what_to_do),
            }
        }
        route.error_pages = list(pages);
    }
}

/// `error_page CODE… [=[RESPONSE]] URI`, with the `root` of its file; otherwise what to do.
fn page<'a>(
    directive: &Directive,
    scope: &Scope<'a>,
    known: &Known,
) -> Result<(ErrorPage, Option<&'a Directive>), String> {
    let mut words: Vec<&str> = directive.texts().collect();
    let uri = words.pop().unwrap_or_default();
    let shown_as = match words.last().and_then(|word| word.strip_prefix('=')) {
        Some("") => return Err("write the status after `=`: a page has no status of its own".to_owned()),
        Some(status) => {
            words.pop();
            number(status).and_then(|status| u16::try_from(status).ok())
        }
        None => None,
    };
    let status =
        |word: &&str| number(word).and_then(|it| u16::try_from(it).ok()).filter(|it| (400..600).contains(it));
    let statuses: Vec<u16> =
        words.iter().map(status).collect::<Option<_>>().ok_or("name errors from 400 to 599")?;
    let page = ErrorPage { status: list(statuses), ..ErrorPage::default() };
    if uri.starts_with('@') {
        return Err("name a file or an address: no request of its own is made for an error".to_owned());
    }
    if !uri.starts_with('/') {
        let location = Word::new(variable::template(uri, known)?);
        let status = shown_as.filter(|status| matches!(status, 301 | 302 | 303 | 307 | 308));
        let redirect = Redirect { status: super::maybe(status), location };
        return Ok((ErrorPage { redirect: Word::new(redirect), ..page }, None));
    }
    let kind = KINDS.iter().find(|(ending, _)| uri.ends_with(ending));
    let (Some((_, kind)), true) = (kind, variable::is_constant(uri)) else {
        return Err("name a file that ends in .html, .json or .txt".to_owned());
    };
    let inner = scope.location(uri).map(|block| scope.inner(block.inside()));
    let scope = inner.as_ref().unwrap_or(scope);
    let acts = ["proxy_pass", "grpc_pass", "return", "alias", "try_files", "rewrite"];
    if acts.iter().any(|name| inner.is_some() && scope.own(name).is_some()) {
        return Err("have its location serve a file below `root`".to_owned());
    }
    let root = scope.one("root").filter(|root| variable::is_constant(root.arg(0)));
    let root = root.ok_or("say in which `root` the file is")?;
    let file = format!("{}{uri}", root.arg(0).trim_end_matches('/'));
    let (file, content_type) = (Word::new(file), Word::new((*kind).to_owned()));
    Ok((ErrorPage { file, content_type, shown_as: super::maybe(shown_as), ..page }, Some(root)))
}
