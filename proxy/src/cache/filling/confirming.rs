//! What the origin says of a stored answer without sending its body again: that it is good, or that there is none any more.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};

use super::{Confirmed, FillGuard};
use crate::cache::{
    conditional,
    desk::Ask,
    directives::Directives,
    entry::Entry,
    policy::NotStored,
    request::Now,
    tags::{Standing, Tag},
};

impl FillGuard {
    /// Takes a 304: the stale entry, updated with its fields, is good again (RFC 9111 §4.3.4).
    ///
    /// # Errors
    /// [`NotStored::Mismatch`] when the 304 is about something else, or what is kept cannot become what it says. The stale
    /// entry is given up; ask again, without validators, under the same guard.
    pub fn not_modified(
        &mut self,
        headers: &HeaderMap,
        tags: &[Tag],
        now: Now,
    ) -> Result<Confirmed, NotStored> {
        let Some(stale) = self.stale.take() else { return Err(NotStored::Mismatch) };
        if !conditional::confirms(stale.head(), headers) {
            self.give_up(&stale);
            return Err(NotStored::Mismatch);
        }
        let merged = conditional::merged(&stale.head().headers, headers, &self.fill.ask.rule);
        match self.judge(stale.head().status, &merged, tags, now) {
            Ok(head) => {
                if head.variant != stale.head().variant {
                    // It would go on beside the new one, and answer those for whom it is not, now that it varies.
                    self.give_up(&stale);
                    if stale.body().stored().is_some() {
                        // The body went with it: its file has the name of the old variant.
                        return Err(NotStored::Mismatch);
                    }
                }
                let key = self.fill.ask.key.text();
                let entry = Arc::new(Entry::new(key, Arc::new(head), Arc::clone(stale.body())));
                if !entry.head().freshness.begins_fresh() {
                    self.fills.pass(&self.fill.ask, now.mono);
                }
                let fill = Arc::clone(&self.fill);
                let refused = self.complete(&fill.ask.key, &entry, now).err();
                if let Some(disk) = &*self.fills.shelf.disk.load()
                    && refused.is_none()
                    && entry.body().stored().is_some()
                {
                    disk.keep_head(&entry);
                }
                Ok(Confirmed { entry, refused })
            }
            Err(reason) => {
                if !is_of_the_request(reason) {
                    self.give_up(&stale);
                }
                self.refuse(reason, now);
                Ok(Confirmed { entry: stale, refused: Some(reason) })
            }
        }
    }

    /// Takes the answer to a HEAD: what it says of the stored body is news for the entry, if it is the same body; of
    /// another, the entry is given up (RFC 9111 §4.3.5). Says whether the entry was updated.
    pub fn head_alone(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
        tags: &[Tag],
        now: Now,
    ) -> bool {
        let other = |stale: &mut Arc<Entry>| length.is_some_and(|length| length != stale.body().length());
        let updated = if status != StatusCode::OK {
            Err(NotStored::Mismatch)
        } else if let Some(stale) = self.stale.take_if(other) {
            self.give_up(&stale);
            Err(NotStored::Mismatch)
        } else {
            self.not_modified(headers, tags, now)
        };
        match updated {
            Ok(confirmed) => confirmed.refused.is_none(),
            Err(reason) => {
                self.refuse(reason, now);
                false
            }
        }
    }

    /// Gives up the entry that was asked about, if the answer, which is not kept, says that the origin has nothing for
    /// everybody there any more. It must neither answer while it is fetched anew nor cover for a failing origin.
    ///
    /// A request can be made so that an origin refuses it. So this must be about the target and not about its caller,
    /// and what is still good stays: asking for a fresher one is no way to empty the cache.
    pub(super) fn withdraw(&mut self, status: StatusCode, reason: NotStored) {
        let (shelf, ask, sent) = (&self.fills.shelf, &self.fill.ask, self.fill.sent);
        if !is_of_the_target(status, reason) || !speaks_for_others(ask) {
            return;
        }
        let is_over = |stale: &mut Arc<Entry>| {
            let is_purged = shelf.standing(stale.head()) != Standing::Good;
            stale.head().freshness.assess(&Directives::default(), &ask.rule, is_purged, sent).is_err()
        };
        if let Some(stale) = self.stale.take_if(is_over) {
            self.give_up(&stale);
        }
    }

    /// Gives an entry up, wherever it is kept; in the fleet when it is known that nothing is kept in its place.
    fn give_up(&mut self, stale: &Arc<Entry>) {
        let shelf = &self.fills.shelf;
        // Of many who asked about it the first tells the fleet.
        self.gave_up |= shelf.standing(stale.head()) != Standing::Gone;
        shelf.remove(&self.fill.ask.key, stale);
    }
}

/// Whether it was this request that kept the answer out, which says nothing about the entry.
fn is_of_the_request(reason: NotStored) -> bool {
    matches!(
        reason,
        NotStored::Authorization | NotStored::Cookie | NotStored::Session | NotStored::TooFewUses
    )
}

/// Whether an answer that is not kept says what has become of its target. A 403 is what filters say to one client, and
/// the other failures of clients speak of the request's form.
fn is_of_the_target(status: StatusCode, reason: NotStored) -> bool {
    let is_final =
        status.is_success() || status.is_redirection() || matches!(status.as_u16(), 401 | 404 | 410 | 451);
    is_final && matches!(reason, NotStored::Private | NotStored::NoStore | NotStored::NoLifetime)
}

/// Whether the answer to a request would be the same for all who find the key, as far as is known.
fn speaks_for_others(ask: &Ask) -> bool {
    let has_cookie = ask.headers.contains_key(header::COOKIE) && !ask.rule.ignores(&header::COOKIE);
    let is_somebody_s =
        has_cookie || ask.headers.contains_key(header::AUTHORIZATION) || ask.guard.is_of_session();
    // With `no-store` it was the client that did not want it kept.
    (ask.rule.private_to_caller || !is_somebody_s) && !ask.rule.asked(&ask.headers).no_store
}

#[cfg(test)]
mod tests;
