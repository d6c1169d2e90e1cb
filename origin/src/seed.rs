//! Demo users and items: the same ones in every run, so that a second run changes nothing.

use jiff::Timestamp;
use uuid::{Builder, Uuid};

use crate::{
    accounts::{self, Account, Profile},
    app::StartError,
    config::PasswordConfig,
    database::{Database, Moment, Words},
    items::{self, Draft, Item},
    password::Passwords,
};

/// What every demo user logs in with.
pub const PASSWORD: &str = "correct horse battery staple";
/// 2025-01-01T00:00:00Z in milliseconds; users and items follow one second after another.
const EPOCH: u64 = 1_735_689_600_000;
/// Rows in one statement: 15 values each, within SQLite's 32 766 and Postgres's 65 535 parameters.
const BATCH: u64 = 1000;

const KINDS: [&str; 4] = ["memory", "letter", "photo", "voice"];
const EMOTIONS: [&str; 5] = ["joy", "love", "pride", "longing", "grief"];

/// Adds `user1@example.org` to `user{users}@example.org`, and `items` items spread over them in turn.
///
/// # Errors
/// When the store refuses, or there are items but nobody to own them.
pub async fn seed(
    database: &Database,
    costs: &PasswordConfig,
    users: u64,
    items: u64,
) -> Result<(), StartError> {
    if users == 0 && items > 0 {
        return Err("items need users to own them".into());
    }
    // One hash for all: they share the password anyway, and a hash each would take hours for a million.
    let hash = Passwords::new(costs)?.hash(PASSWORD.into()).await.map_err(|e| e.to_string())?;
    for batch in batches(users) {
        let accounts: Vec<_> = batch.map(account).collect();
        accounts::sql::insert_all(database, &accounts, &hash).await?;
    }
    for batch in batches(items) {
        let rows: Vec<_> = batch.map(|n| (id(b"user", n % users), item(n))).collect();
        items::sql::insert_all(database, rows.iter().map(|(owner, item)| (*owner, item))).await?;
    }
    Ok(())
}

fn batches(count: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    (0..count).step_by(BATCH as usize).map(move |start| start..count.min(start + BATCH))
}

fn account(n: u64) -> Account {
    Account {
        id: id(b"user", n),
        email: format!("user{}@example.org", n + 1),
        roles: Words(vec!["user".into()]),
        email_verified_at: Some(moment(n)),
        created_at: moment(n),
        profile: Profile { display_name: format!("User {}", n + 1), ..Profile::default() },
    }
}

fn item(n: u64) -> Item {
    let pick = |list: &[&str]| list[(n % list.len() as u64) as usize].to_owned();
    Item {
        id: id(b"item", n),
        version: 1,
        draft: Draft {
            kind: pick(&KINDS),
            title: format!("Item {}", n + 1),
            content: format!("What item {} has to say. ", n + 1).repeat(8),
            emotion_category: Some(pick(&EMOTIONS)),
            importance_score: i32::try_from(n % 101).ok(),
            keywords: Words(vec![pick(&KINDS), format!("year-{}", 1990 + n % 35)]),
            scheduled_delivery: None,
            media_url: None,
            thumbnail_url: None,
        },
        created_at: moment(n),
        updated_at: moment(n),
    }
}

/// A UUID version 7 whose random part is the number.
fn id(kind: &[u8; 4], n: u64) -> Uuid {
    let mut rest = [0; 10];
    rest[..4].copy_from_slice(kind);
    rest[4..].copy_from_slice(&n.to_be_bytes()[2..]);
    Builder::from_unix_timestamp_millis(EPOCH + n * 1000, &rest).into_uuid()
}

fn moment(n: u64) -> Moment {
    let millis = i64::try_from(EPOCH + n * 1000).unwrap_or(i64::MAX);
    Moment::cut(Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX))
}
