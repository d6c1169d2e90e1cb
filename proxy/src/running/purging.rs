//! Purges that somebody orders, by the admin listener or with PURGE.

use std::{collections::BTreeSet, time::Duration};

use weir_config::plan::CacheId;

use super::{PurgedBy, Running};
use crate::{
    cache::{Cache, Head, Key, Purge, Subject, Tag, Told, Url},
    fleet::Redis,
};

/// What is to be purged, in every cache unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// One key, as templates render it; of routes without a template, the URL.
    Key(String),
    /// What was fetched for this URL, under whatever key; and what a GET of it is answered with, though it was fetched for another
    /// with the same key.
    Url(Url, Option<(CacheId, Key)>),
    /// What was fetched for URLs that begin like this.
    Prefix(Url),
    /// What carries this tag.
    Tag(String),
    /// Everything in one cache, by its position, or in all.
    All(Option<usize>),
}

impl Order {
    /// Its kind and its object, as it is ordered.
    #[must_use]
    pub fn said<'o>(&'o self, running: &'o Running) -> (&'static str, &'o str) {
        match self {
            Self::Key(text) => ("key", text),
            Self::Url(url, _) => ("url", url.as_str()),
            Self::Prefix(url) => ("prefix", url.as_str()),
            Self::Tag(name) => ("tag", name),
            Self::All(None) => ("all", "every cache"),
            Self::All(Some(at)) => ("all", &running.plan.caches[*at].name),
        }
    }

    /// The keys of [`Order::Key`], in every cache and for every realm that keeps there: a text can be a template's or a URL.
    fn keys<'r>(text: &str, running: &'r Running) -> impl Iterator<Item = (&'r Cache, Key)> {
        let url = Url::parse(text);
        let rules = running.plan.routes.iter().filter_map(|route| route.cache.as_ref());
        let places: BTreeSet<_> = rules.map(|rule| (rule.cache.index(), &*rule.realm)).collect();
        places.into_iter().flat_map(move |(cache, realm)| {
            let target = url.as_ref().map(|url| {
                let (scheme, authority, target) = url.parts();
                Key::target(realm, scheme, authority, target)
            });
            let keys = [Key::rendered(realm, "", text)].into_iter().chain(target);
            keys.map(move |key| (&running.caches[cache], key))
        })
    }
}

impl Running {
    /// Purges what is ordered, fills under way included, and tells the fleet.
    pub fn purge(&self, order: &Order, mode: Purge, by: PurgedBy) {
        self.end(order, mode);
        self.count_purges(by, mode, 1);
    }

    fn end(&self, order: &Order, mode: Purge) {
        match order {
            Order::Key(text) => Order::keys(text, self).for_each(|(cache, key)| {
                self.tags.announce(&Subject::key(&key), mode, || cache.purge_key(&key, mode));
            }),
            Order::Url(url, kept) => {
                self.tags.order(Subject::url(url), mode);
                if let Some((_, key)) = kept {
                    self.tags.order(Subject::key(key), mode);
                }
            }
            Order::Prefix(prefix) => self.tags.order(Subject::prefix(prefix), mode),
            Order::Tag(name) => self.tags.order(Subject::named(name), mode),
            Order::All(one) => {
                let named = self.plan.caches.iter().zip(&self.caches).enumerate();
                for (_, (plan, cache)) in named.filter(|(at, _)| one.is_none_or(|one| one == *at)) {
                    self.tags.announce(&Subject::cache(&plan.name), mode, || cache.purge_all(mode));
                }
            }
        }
    }

    /// Ends what was kept of a URL that a write changed, in every cache and for all of the fleet.
    pub fn end_url(&self, url: Url, kept: Option<(CacheId, Key)>) {
        self.end(&Order::Url(url, kept), Purge::Hard);
    }

    /// Whether the fleet knows of all purges so far. Waits for it no longer than for an answer of Redis.
    pub async fn told(&self) -> Told {
        self.tags.told(self.redis.as_ref().map_or(Duration::ZERO, Redis::timeout)).await
    }

    /// How many entries a purge would end; `None` where it would have to look at every entry and `thoroughly` is not asked.
    #[must_use]
    pub fn entries(&self, order: &Order, thoroughly: bool) -> Option<usize> {
        let mut rules = self.plan.routes.iter().filter_map(|route| route.cache.as_ref());
        let all_is_whole = rules.all(|rule| !rule.keeps_parts());
        if let Order::Key(text) = order
            && all_is_whole
        {
            return Some(Order::keys(text, self).map(|(cache, key)| cache.under(&key).len()).sum());
        }
        let like: Box<dyn Fn(&Head) -> bool> = match order {
            _ if !thoroughly => return None,
            Order::Url(url, None) => has(url.tag()),
            Order::Url(url, Some((_, key))) => {
                let tags = [url.tag(), Tag::key(key)];
                Box::new(move |head| tags.iter().any(|tag| head.tags.contains(tag)))
            }
            Order::Tag(name) => has(Tag::named(name)),
            Order::Prefix(prefix) => Box::new(|head| head.url.as_str().starts_with(prefix.as_str())),
            Order::Key(text) => {
                let tags: Vec<_> = Order::keys(text, self).map(|(_, key)| Tag::key(&key)).collect();
                Box::new(move |head| tags.iter().any(|tag| head.tags.contains(tag)))
            }
            Order::All(_) => Box::new(|_| true),
        };
        let of = |(at, cache): (usize, &Cache)| match order {
            Order::All(Some(one)) if *one != at => 0,
            _ => cache.count(&like),
        };
        Some(self.caches.iter().enumerate().map(of).sum())
    }
}

fn has(tag: Tag) -> Box<dyn Fn(&Head) -> bool> {
    Box::new(move |head| head.tags.contains(&tag))
}
