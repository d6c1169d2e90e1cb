//! The time as HTTP writes it, made once a second and thread.

use std::{cell::RefCell, time::SystemTime};

/// What `read` makes of the text (RFC 9110 §5.6.7).
pub(super) fn now<T>(read: impl FnOnce(&str) -> T) -> T {
    thread_local! {
        static DATE_OF: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE_OF.with_borrow_mut(|(of, text)| {
        if *of != second || text.is_empty() {
            (*of, *text) = (second, httpdate::fmt_http_date(now));
        }
        read(text)
    })
}
