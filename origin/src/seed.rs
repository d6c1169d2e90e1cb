//! Demo data: the same rows in every run, so that a second run changes nothing.

mod bulk;

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use self::bulk::{Cell, Table};
use crate::{
    app::StartError,
    config::PasswordConfig,
    database::{Database, Moment, Words},
    password::Passwords,
};

/// What every demo user logs in with.
pub const PASSWORD: &str = "correct horse battery staple";
/// 2025-01-01T00:00:00Z in milliseconds; rows of a kind follow one second after another.
const EPOCH: u64 = 1_735_689_600_000;
/// Seconds until demo items are delivered: twenty years, so that nobody gets mail about them.
const DELIVERED_AFTER: u64 = 631_152_000;

const KINDS: [&str; 4] = ["memory", "letter", "photo", "voice"];
const EMOTIONS: [&str; 5] = ["joy", "love", "pride", "longing", "grief"];

/// How many of each. All but users are spread over the users in turn.
#[derive(Debug, Clone, Args)]
pub struct Volume {
    /// Users `user1@example.org`, `user2@example.org`, …
    #[arg(long, default_value_t = 100)]
    pub users: u64,
    /// Vault items.
    #[arg(long, default_value_t = 1000)]
    pub items: u64,
    /// Notes: one in ten pinned, in the archive, or in the bin.
    #[arg(long, default_value_t = 200)]
    pub notes: u64,
    /// Posts.
    #[arg(long, default_value_t = 50)]
    pub posts: u64,
    /// Likes of the last two weeks, at most one of each user for each post.
    #[arg(long, default_value_t = 500)]
    pub likes: u64,
    /// Sessions whose tokens nobody has: for the size of the table only.
    #[arg(long, default_value_t = 0)]
    pub sessions: u64,
}

const USERS: Table = Table {
    name: "users",
    columns: &["id", "email", "password_hash", "roles", "email_verified_at", "created_at", "updated_at"],
};
const PROFILES: Table =
    Table { name: "profiles", columns: &["user_id", "display_name", "bio", "avatar_url", "updated_at"] };
const SESSIONS: Table = Table {
    name: "sessions",
    columns: &["token_hash", "user_id", "seed", "user_agent", "created_at", "expires_at"],
};
const ITEMS: Table = Table {
    name: "items",
    columns: &[
        "id",
        "user_id",
        "version",
        "type",
        "title",
        "content",
        "emotion_category",
        "importance_score",
        "keywords",
        "scheduled_delivery",
        "created_at",
        "updated_at",
    ],
};
const NOTES: Table = Table {
    name: "notes",
    columns: &[
        "id",
        "user_id",
        "version",
        "title",
        "content",
        "is_pinned",
        "is_favourite",
        "is_archived",
        "is_trashed",
        "created_at",
        "updated_at",
    ],
};
const POSTS: Table = Table {
    name: "posts",
    columns: &["id", "author_id", "version", "title", "content", "created_at", "updated_at"],
};
const LIKES: Table = Table { name: "likes", columns: &["post_id", "user_id", "created_at"] };

/// Adds `user1@example.org` to `user{users}@example.org` and what is theirs; `now` is what likes and sessions are recent to.
///
/// # Errors
/// When the store refuses, or there is something to own but nobody to own it.
pub async fn seed(
    database: &Database,
    costs: &PasswordConfig,
    volume: &Volume,
    now: Moment,
) -> Result<(), StartError> {
    let &Volume { users, items, notes, posts, likes, sessions } = volume;
    if users == 0 && items + notes + posts + likes + sessions > 0 {
        return Err("users are needed to own the rest".into());
    }
    if likes > posts * users {
        return Err(format!("{users} users like {posts} posts at most {} times", posts * users).into());
    }
    // One hash for all: they share the password anyway, and a hash each would take hours for a million.
    let hash = Passwords::new(costs)?.hash(PASSWORD.into()).await.map_err(|e| e.to_string())?;
    let bars = MultiProgress::new();
    let fill = async |table: Table, count: u64, row: &(dyn Fn(u64) -> Vec<Cell> + Sync)| {
        let bar = bars.add(ProgressBar::new(count).with_message(table.name).with_style(style()));
        bulk::fill(database, table, count, row, &bar).await?;
        bar.finish();
        Ok::<_, StartError>(())
    };
    fill(USERS, users, &|n| user(n, &hash)).await?;
    fill(PROFILES, users, &profile).await?;
    fill(SESSIONS, sessions, &|n| session(n, users, now)).await?;
    fill(ITEMS, items, &|n| item(n, users)).await?;
    fill(NOTES, notes, &|n| note(n, users)).await?;
    fill(POSTS, posts, &|n| post(n, users)).await?;
    fill(LIKES, likes, &|n| like(n, posts, users, now)).await?;
    Ok(bulk::settle(database).await?)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg:>9} {wide_bar} {human_pos}/{human_len} {eta}")
        .expect("a template that is always the same")
}

fn user(n: u64, hash: &str) -> Vec<Cell> {
    let email = format!("user{}@example.org", n + 1);
    let roles = Words(vec!["user".into()]);
    vec![owner(n), email.into(), hash.into(), roles.into(), at(n), at(n), at(n)]
}

fn profile(n: u64) -> Vec<Cell> {
    vec![owner(n), format!("User {}", n + 1).into(), "".into(), Cell::Null, at(n)]
}

fn session(n: u64, users: u64, now: Moment) -> Vec<Cell> {
    let hash = Sha256::digest(n.to_be_bytes()).to_vec();
    let begun = Moment::cut(now.timestamp() - SignedDuration::from_secs(cut(n % 86_400)));
    let ends = Moment::cut(begun.timestamp() + SignedDuration::from_hours(48));
    vec![
        Cell::Bytes(hash.clone()),
        owner(n % users),
        Cell::Bytes(hash),
        "seed".into(),
        Cell::At(begun),
        Cell::At(ends),
    ]
}

fn item(n: u64, users: u64) -> Vec<Cell> {
    let turn = turn(n, users);
    vec![
        id(b"item", n),
        owner(n % users),
        Cell::Number(1),
        pick(&KINDS, turn).into(),
        format!("Item {}", n + 1).into(),
        format!("What item {} has to say. ", n + 1).repeat(8).into(),
        pick(&EMOTIONS, turn).into(),
        Cell::Number(cut(turn % 101)),
        Words(vec![pick(&KINDS, turn).into(), format!("year-{}", 1990 + turn % 35)]).into(),
        if turn % 20 == 7 { Cell::At(moment(n + DELIVERED_AFTER)) } else { Cell::Null },
        at(n),
        at(n),
    ]
}

fn note(n: u64, users: u64) -> Vec<Cell> {
    let turn = turn(n, users);
    vec![
        id(b"note", n),
        owner(n % users),
        Cell::Number(1),
        format!("Note {}", n + 1).into(),
        format!("Think of {}. ", n + 1).repeat(8).into(),
        Cell::Flag(turn % 10 == 4),
        Cell::Flag(turn % 10 == 1),
        Cell::Flag(turn % 10 == 2),
        Cell::Flag(turn % 10 == 3),
        at(n),
        at(n),
    ]
}

fn post(n: u64, users: u64) -> Vec<Cell> {
    let content = format!("What post {} has to say. ", n + 1).repeat(8);
    vec![
        id(b"post", n),
        owner(n % users),
        Cell::Number(1),
        format!("Post {}", n + 1).into(),
        content.into(),
        at(n),
        at(n),
    ]
}

/// Each user likes each post once at most: pairs are counted through.
fn like(n: u64, posts: u64, users: u64, now: Moment) -> Vec<Cell> {
    let (post, user) = (n % posts, (n / posts + n % posts) % users);
    let ago = SignedDuration::from_secs(cut(n * 7919 % (14 * 86_400)));
    vec![id(b"post", post), owner(user), Cell::At(Moment::cut(now.timestamp() - ago))]
}

fn pick(list: &[&'static str], n: u64) -> &'static str {
    list[(n % list.len() as u64) as usize]
}

/// What a row is like: each user has every kind in turn, and does not begin with the same one as the others.
fn turn(n: u64, users: u64) -> u64 {
    n / users + n % users
}

fn owner(n: u64) -> Cell {
    id(b"user", n)
}

/// A UUID version 7 whose random part is the kind and the number.
fn id(kind: &[u8; 4], n: u64) -> Cell {
    let mut rest = [0; 10];
    rest[..4].copy_from_slice(kind);
    rest[4..].copy_from_slice(&n.to_be_bytes()[2..]);
    let id: Uuid = Builder::from_unix_timestamp_millis(EPOCH + n * 1000, &rest).into_uuid();
    Cell::Id(id)
}

fn at(n: u64) -> Cell {
    Cell::At(moment(n))
}

fn moment(n: u64) -> Moment {
    let millis = cut(EPOCH + n * 1000);
    Moment::cut(Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX))
}

fn cut(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
