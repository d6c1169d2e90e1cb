//! Which answers are compressed: what is said for all routes, and what a route says otherwise.

use super::Resolver;
use crate::{
    defaults as d,
    plan::{Coding, Compress, MediaRange},
    raw::{self, Short, Switch, Word},
};

impl Resolver<'_> {
    /// What holds for routes that say nothing; `None` compresses nothing.
    pub(super) fn compress_all(&mut self) -> Option<Compress> {
        self.compress(&self.raw.compress, None)
    }

    /// What holds where `word` is said in front of what is said for `all`.
    pub(super) fn compress(
        &mut self,
        word: &Word<Short<Switch<raw::Compress>>>,
        all: Option<&Compress>,
    ) -> Option<Compress> {
        let own = match word.get() {
            None => return all.cloned(),
            Some(Short(Switch::Off)) => return None,
            Some(Short(Switch::On(own))) => own,
        };
        let codings = self.codings(own);
        let types: Vec<_> =
            own.types.items().filter_map(|(text, place)| self.media_range(text, place)).collect();
        Some(Compress {
            codings: codings
                .or_else(|| all.map(|all| all.codings.clone()))
                .unwrap_or_else(|| d::COMPRESS_CODINGS.to_vec()),
            min_bytes: own.min_bytes.or(all.map_or(d::COMPRESS_MIN_BYTES, |all| all.min_bytes)),
            types: if own.types.is_absent() {
                all.map_or_else(default_types, |all| all.types.clone())
            } else {
                types
            },
            personal: own.personal.or(all.map_or(d::COMPRESS_PERSONAL, |all| all.personal)),
        })
    }

    fn codings(&mut self, raw: &raw::Compress) -> Option<Vec<(Coding, u32)>> {
        let mut codings = Vec::new();
        for (name, level, place) in raw.codings.entries() {
            let Some(coding) = Coding::ALL.into_iter().find(|coding| coding.name() == name) else {
                let problem = self.report.error(place, format!("there is no coding `{name}`"));
                problem.suggest(name, Coding::ALL.iter().map(|coding| coding.name()));
                continue;
            };
            let most = coding.max_level();
            if !(1..=most).contains(level) {
                self.report
                    .error(place, format!("{name} has no level {level} for answers that somebody waits for"))
                    .help(format!("from 1 (fast) to {most} (small)"));
            }
            codings.push((coding, *level));
        }
        if let Some(place) = raw.codings.place().filter(|_| raw.codings.entries().next().is_none()) {
            self.report.error(place, "there is no coding to use").help("write `compress: off`");
        }
        (!codings.is_empty()).then_some(codings)
    }

    fn media_range(&mut self, text: &str, place: crate::span::Place) -> Option<MediaRange> {
        let range = text.to_ascii_lowercase();
        if matches!(&*range, "*" | "*/*") {
            return Some(MediaRange::Any);
        }
        let token = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
        };
        match range.split_once('/') {
            Some((main, "*")) if token(main) => Some(MediaRange::Below(format!("{main}/"))),
            Some((main, sub)) if token(main) && token(sub) => Some(MediaRange::One(range)),
            _ => {
                self.report
                    .error(place, format!("`{text}` is no media type"))
                    .help("write `text/css`, `text/*` or `*`, without parameters");
                None
            }
        }
    }
}

fn default_types() -> Vec<MediaRange> {
    d::COMPRESS_TYPES.iter().map(|name| MediaRange::One((*name).to_owned())).collect()
}
