//! People who come and stay: each does a deed, pauses, and does the next.
//!
//! A closed loop: how the system feels to so many, and what becomes of the answers while they become more. Seen second by second, so that
//! it can be drawn.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use rand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::People;
use crate::api::{self, Kind};

/// The mean pause: a hundred people ask a thousand times a minute.
const PAUSE: Duration = Duration::from_secs(6);
/// How often of a hundred deeds: mostly reading.
const DEEDS: [(Kind, u32); 4] = [(api::ME, 80), (api::PROFILE, 10), (api::LOGIN, 6), (api::LOGOUT, 4)];

/// How many people, and when.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Who is there at the beginning.
    pub from: u32,
    /// Who is there when all have come.
    pub to: u32,
    /// In which time the others come, one after the other.
    pub within: Duration,
    /// How long all of it takes.
    pub lasts: Duration,
}

impl Shape {
    /// When the `nth` comes; those of the beginning within one pause, so that they do not ask in step.
    fn comes(self, nth: u32) -> Duration {
        if nth < self.from {
            return PAUSE * nth / self.from;
        }
        self.within * (nth - self.from) / (self.to - self.from).max(1)
    }
}

/// What one second saw.
#[derive(Debug, Clone, Default)]
pub struct Second {
    /// Who was there at its beginning.
    pub people: u32,
    /// How long the answers took that came in it.
    pub took: Vec<Duration>,
    /// Deeds that were refused, or broke.
    pub failed: u64,
}

impl Second {
    /// What `share` of the answers did not pass; zero without any. `took` must be sorted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.took.len().saturating_sub(1);
        self.took.get((share * last as f64).round() as usize).copied().unwrap_or_default()
    }
}

impl People {
    /// Lets them come and stay; what each second saw, its answers sorted.
    pub async fn crowd(self: &Arc<Self>, shape: Shape) -> Vec<Second> {
        let begun = Instant::now();
        let mut staying = JoinSet::new();
        for nth in 0..shape.to {
            staying.spawn(Arc::clone(self).stays(begun, begun + shape.comes(nth), begun + shape.lasts));
        }
        let mut seconds = vec![Second::default(); shape.lasts.as_secs() as usize + 1];
        for deeds in staying.join_all().await {
            for (at, did) in deeds {
                let last = seconds.len() - 1;
                let second = &mut seconds[(at.as_secs() as usize).min(last)];
                match did {
                    Some(took) => second.took.push(took),
                    None => second.failed += 1,
                }
            }
        }
        for (at, second) in (0..).zip(&mut seconds) {
            let is_there = |nth: &u32| shape.comes(*nth) <= Duration::from_secs(at);
            second.people = u32::try_from((0..shape.to).filter(is_there).count()).unwrap_or(u32::MAX);
            second.took.sort_unstable();
        }
        seconds
    }

    /// One person's deeds: when each ended, and how long it took if it did not fail.
    async fn stays(
        self: Arc<Self>,
        begun: Instant,
        from: Instant,
        until: Instant,
    ) -> Vec<(Duration, Option<Duration>)> {
        let mut deeds = Vec::new();
        let Some(mut person) = self.take_free() else { return deeds };
        sleep_until(from).await;
        while Instant::now() < until {
            let did = self.act(&mut person, drawn()).await.ok();
            deeds.push((begun.elapsed(), did));
            sleep(PAUSE.mul_f64(0.5 + rand::random::<f64>())).await;
        }
        self.put_back(person);
        deeds
    }
}

fn drawn() -> Kind {
    let mut drawn = rand::rng().random_range(0..100);
    let hit = DEEDS.iter().find(|(_, share)| {
        let is_hit = drawn < *share;
        drawn = drawn.saturating_sub(*share);
        is_hit
    });
    hit.map_or(api::ME, |(kind, _)| *kind)
}

/// A line for each second, with a head: people, answers, failures, and milliseconds.
#[must_use]
pub fn csv(seconds: &[Second]) -> String {
    let mut text = "second,people,answers,failed,p50_ms,p95_ms,p99_ms\n".to_owned();
    for (at, second) in seconds.iter().enumerate() {
        let milliseconds = |share| second.quantile(share).as_secs_f64() * 1e3;
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(milliseconds);
        let Second { people, took, failed } = second;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{at},{people},{},{failed},{p50:.2},{p95:.2},{p99:.2}", took.len());
    }
    text
}

/// The same as curves, each drawn to its own height, which the legend says.
#[must_use]
pub fn svg(title: &str, seconds: &[Second]) -> String {
    const WIDTH: f64 = 900.0;
    const HEIGHT: f64 = 300.0;
    let mut text = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {}' font-family='sans-serif' font-size='14'>\n\
         <text x='8' y='18'>{title}, {} s</text>\n",
        HEIGHT + 60.0,
        seconds.len()
    );
    type Curve<'c> = (&'c str, &'c str, &'c dyn Fn(&Second) -> f64);
    let curves: [Curve<'_>; 4] = [
        ("people", "#888", &|second| second.people.into()),
        ("answers in a second", "#06c", &|second| second.took.len() as f64),
        ("p95 in ms", "#c60", &|second| second.quantile(0.95).as_secs_f64() * 1e3),
        ("failed in a second", "#c00", &|second| second.failed as f64),
    ];
    for (nth, (name, ink, value)) in curves.iter().enumerate() {
        let most = seconds.iter().map(value).fold(0.0, f64::max);
        let points = seconds.iter().enumerate().map(|(at, second)| {
            let x = WIDTH * at as f64 / seconds.len() as f64;
            let y = 30.0 + HEIGHT * (1.0 - value(second) / most.max(1.0));
            format!("{x:.1},{y:.1} ")
        });
        let points: String = points.collect();
        let _ = writeln!(text, "<polyline fill='none' stroke='{ink}' points='{points}'/>");
        let place = 8 + 220 * nth;
        let _ = writeln!(text, "<text x='{place}' y='350' fill='{ink}'>{name}: up to {most:.1}</text>");
    }
    text + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPIKE: Shape =
        Shape { from: 2, to: 4, within: Duration::from_secs(10), lasts: Duration::from_secs(20) };

    #[test]
    fn those_of_the_beginning_come_first_and_the_others_one_by_one() {
        let comes: Vec<_> = (0..4).map(|nth| SPIKE.comes(nth).as_secs()).collect();
        assert_eq!(comes, [0, 3, 0, 5]);
        let alone = Shape { to: 2, ..SPIKE };
        assert_eq!(alone.comes(1), Duration::from_secs(3), "nobody else comes");
    }

    #[test]
    fn a_second_is_a_line_of_the_table_and_a_point_of_each_curve() {
        let took = (1..=100).map(Duration::from_millis).collect();
        let seconds = [Second { people: 7, took, failed: 1 }, Second::default()];
        assert_eq!(
            csv(&seconds),
            "second,people,answers,failed,p50_ms,p95_ms,p99_ms\n0,7,100,1,51.00,95.00,99.00\n1,0,0,0,0.00,0.00,0.00\n"
        );
        let drawn = svg("spike", &seconds);
        assert_eq!(drawn.matches("<polyline").count(), 4);
        assert!(drawn.contains("people: up to 7.0") && drawn.contains("failed in a second: up to 1.0"));
    }

    #[test]
    fn every_deed_is_drawn_sometimes() {
        assert_eq!(DEEDS.iter().map(|(_, share)| share).sum::<u32>(), 100);
        let drawn: std::collections::BTreeSet<_> = (0..2000).map(|_| drawn().label).collect();
        assert_eq!(drawn.len(), DEEDS.len());
    }
}
