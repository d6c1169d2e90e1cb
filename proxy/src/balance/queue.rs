//! The queue: requests wait here for a place at a peer instead of being refused, each client in turn.
//!
//! A request that finds every peer full joins behind the others of its client; the clients take turns, so that one that
//! sends a thousand requests delays its own. When the queue is full, who has the most waiting gives a place to one who has
//! less. A place that is given back calls the next request, and a request that got a place calls another one, because
//! more may be free (a peer that came back, a limit that grew). Who is called and finds nothing waits at the very front.
//! A new request never overtakes: while anybody waits, it joins. Nor does a later one: nobody is called while another one
//! that was called has yet to look, and that looks again if a place was given back meanwhile.
//!
//! Bounds: `length` requests, each for `timeout`. It leaves to others: what counts as full (`Pool::pick`).
//!
//! Source: nginx `queue` for length and timeout; HAProxy's `maxqueue`. The turns are ours.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Who waits for a place in one upstream.
#[derive(Debug)]
pub(super) struct Queue {
    length: usize,
    pub(super) timeout: Duration,
    /// Requests that hold a ticket, those that were called included; read without the lock.
    waiting: AtomicUsize,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    /// The clients in the order of their turns, each with its requests in the order they came; no list is empty.
    turns: VecDeque<Line>,
    /// A request was called, which belongs to no line then, and has not told yet what it found.
    calling: bool,
    /// A place was given back since it was called.
    freed: bool,
}

#[derive(Debug)]
struct Line {
    client: IpAddr,
    requests: VecDeque<Arc<Call>>,
}

/// How a waiting request is told.
#[derive(Debug, Default)]
struct Call {
    told: Notify,
    news: Mutex<News>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum News {
    #[default]
    None,
    /// A place may be free.
    YourTurn,
    /// Somebody with fewer requests took this one's place in the queue.
    Displaced,
}

/// A place in the queue; leaves it when dropped, and passes the call on if it was called for nothing.
#[derive(Debug)]
pub(super) struct Ticket {
    queue: Arc<Queue>,
    client: IpAddr,
    call: Arc<Call>,
}

/// There is no room, or no room any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

impl Queue {
    pub(super) fn new(length: usize, timeout: Duration) -> Arc<Self> {
        Arc::new(Self { length, timeout, waiting: AtomicUsize::new(0), lines: Mutex::default() })
    }

    /// Whether it is the one that the plan asks for.
    pub(super) fn is(&self, length: usize, timeout: Duration) -> bool {
        (self.length, self.timeout) == (length, timeout)
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Joins behind the other requests of `client`.
    pub(super) fn join(self: &Arc<Self>, client: IpAddr) -> Result<Ticket, NoRoom> {
        let call = Arc::new(Call::default());
        let mut lines = self.lines.lock();
        if self.waiting() >= self.length {
            lines.make_room(client)?;
        }
        match lines.turns.iter_mut().find(|line| line.client == client) {
            Some(line) => line.requests.push_back(Arc::clone(&call)),
            None => lines.turns.push_back(Line { client, requests: [Arc::clone(&call)].into() }),
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        drop(lines);
        Ok(Ticket { queue: Arc::clone(self), client, call })
    }

    /// A place may be free: calls the next request, whose client goes to the end of the turns.
    pub(super) fn call_next(&self) {
        if self.waiting() > 0 {
            self.lines.lock().call_next();
        }
    }
}

impl Lines {
    fn call_next(&mut self) {
        if self.calling {
            self.freed = true;
            return;
        }
        let Some(mut line) = self.turns.pop_front() else { return };
        let next = line.requests.pop_front();
        if !line.requests.is_empty() {
            self.turns.push_back(line);
        }
        if let Some(next) = next {
            self.calling = true;
            next.tell(News::YourTurn);
        }
    }

    /// Displaces the newest request of the client with the most, if that has more than `client` would have.
    fn make_room(&mut self, client: IpAddr) -> Result<(), NoRoom> {
        let own = self.turns.iter().find(|line| line.client == client).map_or(0, |line| line.requests.len());
        let longest = self.turns.iter_mut().max_by_key(|line| line.requests.len()).ok_or(NoRoom)?;
        if longest.requests.len() <= own + 1 {
            return Err(NoRoom);
        }
        let displaced = longest.requests.pop_back().ok_or(NoRoom)?;
        displaced.tell(News::Displaced);
        Ok(())
    }
}

impl Call {
    fn tell(&self, news: News) {
        *self.news.lock() = news;
        self.told.notify_one();
    }
}

impl Ticket {
    /// Resolves when it is this request's turn.
    pub(super) async fn turn(&self) -> Result<(), NoRoom> {
        loop {
            match *self.call.news.lock() {
                News::YourTurn => return Ok(()),
                News::Displaced => return Err(NoRoom),
                News::None => {}
            }
            self.call.told.notified().await;
        }
    }

    /// It was called, and somebody was faster: it waits at the very front.
    pub(super) fn again(&self) {
        let mut lines = self.queue.lines.lock();
        *self.call.news.lock() = News::None;
        let position = lines.turns.iter().position(|line| line.client == self.client);
        let mut line = position
            .and_then(|position| lines.turns.remove(position))
            .unwrap_or_else(|| Line { client: self.client, requests: VecDeque::new() });
        line.requests.push_front(Arc::clone(&self.call));
        lines.turns.push_front(line);
        lines.calling = false;
        if std::mem::take(&mut lines.freed) {
            lines.call_next();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
        let mut lines = self.queue.lines.lock();
        if let Some(position) = lines.turns.iter().position(|line| line.client == self.client) {
            let line = &mut lines.turns[position];
            line.requests.retain(|call| !Arc::ptr_eq(call, &self.call));
            if line.requests.is_empty() {
                lines.turns.remove(position);
            }
        }
        if *self.call.news.lock() == News::YourTurn {
            // It has its place, and another may be free; or it gave up, and the call is the next one's.
            (lines.calling, lines.freed) = (false, false);
            lines.call_next();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn queue(length: usize) -> Arc<Queue> {
        Queue::new(length, Duration::from_secs(1))
    }

    fn client(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn is_called(ticket: &Ticket) -> bool {
        ticket.turn().now_or_never() == Some(Ok(()))
    }

    #[test]
    fn clients_take_turns_however_many_requests_they_have() {
        let queue = queue(10);
        let mut tickets = [1, 1, 1, 2, 3].map(|number| queue.join(client(number)).ok());
        let mut order = Vec::new();
        queue.call_next();
        for _ in 0..5 {
            let called = tickets.iter().position(|ticket| ticket.as_ref().is_some_and(is_called)).unwrap();
            order.push(called);
            tickets[called] = None;
        }
        assert_eq!(order, [0, 3, 4, 1, 2]);
    }

    #[test]
    fn the_length_is_a_bound_and_whoever_leaves_makes_room() {
        let queue = queue(2);
        let (first, _second) = (queue.join(client(1)).unwrap(), queue.join(client(2)).unwrap());
        assert_eq!(queue.join(client(3)).unwrap_err(), NoRoom);
        drop(first);
        assert!(queue.join(client(3)).is_ok());
    }

    #[test]
    fn who_has_the_most_gives_a_place_to_who_has_less() {
        let queue = queue(3);
        let greedy = [1, 1, 1].map(|number| queue.join(client(number)).unwrap());
        let modest = queue.join(client(2)).unwrap();
        let told: Vec<_> = greedy.iter().map(|ticket| ticket.turn().now_or_never()).collect();
        assert_eq!(told, [None, None, Some(Err(NoRoom))], "the newest one goes");
        drop(greedy);
        assert_eq!(queue.waiting(), 1);
        drop(modest);
        assert!(queue.lines.lock().turns.is_empty());
    }

    #[test]
    fn nobody_is_displaced_for_the_same_share() {
        let queue = queue(2);
        let _both = [1, 1].map(|number| queue.join(client(number)).unwrap());
        assert!(queue.join(client(1)).is_err());
        let _other = queue.join(client(2)).unwrap();
        assert!(queue.join(client(3)).is_err());
    }

    #[test]
    fn who_is_called_for_nothing_waits_at_the_front() {
        let queue = queue(10);
        let [first, second, other] = [1, 1, 2].map(|number| queue.join(client(number)).unwrap());
        queue.call_next();
        assert!(is_called(&first));
        first.again();
        assert!(!is_called(&first));
        queue.call_next();
        assert!(is_called(&first) && !is_called(&second) && !is_called(&other));
    }

    #[test]
    fn who_has_yet_to_look_is_not_overtaken_by_whom_the_next_place_would_call() {
        let queue = queue(10);
        let [first, second] = [1, 2].map(|number| queue.join(client(number)).unwrap());
        queue.call_next();
        queue.call_next();
        assert!(is_called(&first) && !is_called(&second));
        first.again();
        assert!(is_called(&first), "for the place that was given back meanwhile");
        first.again();
        assert!(!is_called(&first) && !is_called(&second));
        queue.call_next();
        drop(first);
        assert!(is_called(&second), "more may be free");
    }

    #[test]
    fn a_call_to_one_who_leaves_is_the_next_ones() {
        let queue = queue(10);
        let [first, second] = [1, 2].map(|number| queue.join(client(number)).unwrap());
        queue.call_next();
        drop(first);
        assert!(is_called(&second));
    }

    #[test]
    fn who_leaves_uncalled_calls_nobody() {
        let queue = queue(10);
        let [first, second] = [1, 2].map(|number| queue.join(client(number)).unwrap());
        drop(first);
        assert!(!is_called(&second));
    }
}
